"""The one table of PKCS#11 modules: where distributions put them. No other code knows a vendor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stepca_pki.errors import ModuleUnusable

_MULTIARCH = ("x86_64-linux-gnu", "aarch64-linux-gnu")


def _places(*names: str) -> tuple[str, ...]:
    """The folders of Debian and Ubuntu, Fedora, Alpine, and Homebrew on macOS, for each file name."""
    folders = (
        *(f"/usr/lib/{triplet}" for triplet in _MULTIARCH),
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
        "/opt/homebrew/lib",
    )
    return tuple(f"{folder}/{name}" for name in names for folder in folders)


@dataclass(frozen=True)
class KnownModule:
    """A module that we know by name. *package* is what installs it on Debian, if anything does."""

    name: str
    title: str
    places: tuple[str, ...]
    package: str | None = None
    quirks: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path | None:
        """Where it is on this machine."""
        return next((Path(place) for place in self.places if Path(place).is_file()), None)


_TABLE = (
    KnownModule(
        "softhsm2",
        "SoftHSM2, keys in files",
        (
            "/usr/lib/softhsm/libsofthsm2.so",
            *_places("softhsm/libsofthsm2.so", "pkcs11/libsofthsm2.so", "libsofthsm2.so"),
            "/usr/local/lib/softhsm/libsofthsm2.so",
            "/opt/homebrew/lib/softhsm/libsofthsm2.so",
        ),
        "softhsm2",
        {"pin": "never locks after wrong PINs"},
    ),
    KnownModule(
        "opensc", "OpenSC: smart cards, Nitrokey HSM, SmartCard-HSM", _places("opensc-pkcs11.so"), "opensc-pkcs11"
    ),
    KnownModule(
        "yubihsm2",
        "YubiHSM 2",
        _places("pkcs11/yubihsm_pkcs11.so", "yubihsm_pkcs11.so"),
        "yubihsm-pkcs11",
        {"environment": "YUBIHSM_PKCS11_CONF names its configuration; needs the yubihsm-connector daemon"},
    ),
    KnownModule("ykcs11", "YubiKey PIV", _places("libykcs11.so.2", "libykcs11.so"), "ykcs11"),
    KnownModule(
        "tpm2",
        "TPM 2.0",
        _places("pkcs11/libtpm2_pkcs11.so", "libtpm2_pkcs11.so.1", "libtpm2_pkcs11.so"),
        "libtpm2-pkcs11-1",
    ),
    KnownModule(
        "kryoptic",
        "Kryoptic, keys in SQLite",
        _places("pkcs11/libkryoptic_pkcs11.so", "libkryoptic_pkcs11.so"),
        None,
        {"environment": "KRYOPTIC_CONF names its database"},
    ),
    KnownModule(
        "p11-kit-proxy",
        "every module that p11-kit knows",
        _places("p11-kit-proxy.so", "libp11-kit.so.0"),
        "p11-kit-modules",
    ),
)


def known_modules() -> tuple[KnownModule, ...]:
    return _TABLE


def find_module(name_or_path: str) -> Path:
    """Return the absolute path of a module given by its name in the table or by its path. Raises ModuleUnusable."""
    if "/" in name_or_path:
        return _existing(Path(name_or_path))
    for known in _TABLE:
        if known.name == name_or_path:
            return known.path or _missing(known)
    names = ", ".join(known.name for known in _TABLE)
    raise ModuleUnusable(f"no PKCS#11 module is called '{name_or_path}'", fix=f"give its path, or one of: {names}")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ModuleUnusable(f"{path}: there is no such PKCS#11 module", fix="correct the path; see 'pki hsm modules'")
    return path.absolute()


def _missing(known: KnownModule) -> Path:
    remedy = f"apt-get install {known.package}" if known.package else "install it, or declare its path"
    raise ModuleUnusable(f"the PKCS#11 module '{known.name}' is not on this machine", fix=remedy)
