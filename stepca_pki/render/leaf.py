"""step-ca's X.509 templates (Go text/template that yields JSON), as text. Pure.

Source: go.step.sm/crypto x509util DefaultLeafTemplate.
"""

from __future__ import annotations

import json

_LEAF = """{
  "subject": {{ toJson .Subject }},
  "sans": {{ toJson .SANs }},
{{- if typeIs "*rsa.PublicKey" .Insecure.CR.PublicKey }}
  "keyUsage": ["keyEncipherment", "digitalSignature"],
{{- else }}
  "keyUsage": ["digitalSignature"],
{{- end }}
  "extKeyUsage": ["serverAuth", "clientAuth"]%s
}"""


def leaf_template(*, crl_url: str | None = None, issuer_url: str | None = None) -> str:
    """Return step-ca's default leaf, with a CRL distribution point and AIA caIssuers where given."""
    extra = {"crlDistributionPoints": crl_url, "issuingCertificateURL": issuer_url}
    lines = [f",\n  {json.dumps(key)}: {json.dumps([url])}" for key, url in extra.items() if url]
    return _LEAF % "".join(lines)


def canary_template() -> str:
    """Return the template of probe leaves: a fixed subject and no name at all, whatever the token asks for.

    Its one purpose is an abolished one (RFC 4945 section 5.1.3.12), so a stolen canary key opens no door.
    """
    leaf = {"subject": {"commonName": "pki canary"}, "keyUsage": ["digitalSignature"], "extKeyUsage": ["ipsecTunnel"]}
    return json.dumps(leaf)
