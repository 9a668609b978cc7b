"""Distinguished names."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class SubjectParts:
    """The parts of a subject that we use (RFC 5280 appendix A.1)."""

    common_name: str
    organisation: str | None = None
    organisational_unit: str | None = None
    locality: str | None = None
    province: str | None = None
    country: str | None = None


_ORDER = (
    ("country", NameOID.COUNTRY_NAME),
    ("province", NameOID.STATE_OR_PROVINCE_NAME),
    ("locality", NameOID.LOCALITY_NAME),
    ("organisation", NameOID.ORGANIZATION_NAME),
    ("organisational_unit", NameOID.ORGANIZATIONAL_UNIT_NAME),
    ("common_name", NameOID.COMMON_NAME),
)


def name_of(parts: SubjectParts) -> x509.Name:
    """Return *parts* as a Name, least specific first; cryptography writes the country as PrintableString."""
    values = ((oid, getattr(parts, field)) for field, oid in _ORDER)
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in values if value is not None])


def parts_of(name: x509.Name) -> SubjectParts:
    """Return the parts of *name* that we use; the first of each kind. Raises ValueError without common name."""
    found: dict[str, str] = {}
    for field, oid in _ORDER:
        attributes = name.get_attributes_for_oid(oid)
        if attributes:
            found[field] = str(attributes[0].value)
    if "common_name" not in found:
        raise ValueError("the subject has no common name")
    return SubjectParts(**found)
