"""`python -m stepca_pki` is `pki`."""

from stepca_pki.cli.main import main

main()
