"""Run a private certificate authority whose keys live in an HSM."""
