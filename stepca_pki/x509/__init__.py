"""Certificates: profiles, building, chain checks, the pre-issuance check, CRLs. Pure."""
