"""ACME clients: how each is told our directory, our root, and what to do with a new certificate.

Adding a client is one entry here. Sources: certbot(1), acme.sh's wiki, lego's documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Order:
    """What to get, from where, and where things are on the server."""

    name: str
    directory: str
    root: str
    webroot: str
    folder: str


@dataclass(frozen=True)
class ClientRecipe:
    """*issue* and *renew*: argument lists, run in order. *locate*: shell lines that set $key and $chain."""

    issue: tuple[tuple[str, ...], ...]
    renew: tuple[tuple[str, ...], ...]
    locate: str
    environment: dict[str, str] = field(default_factory=dict)
    package: str = ""


def certbot(order: Order) -> ClientRecipe:
    state = f"{order.folder}/certbot"
    folders = ("--config-dir", state, "--work-dir", f"{state}/work", "--logs-dir", f"{state}/log")
    common = ("--non-interactive", *folders, "--server", order.directory, "--deploy-hook", f"{order.folder}/deploy.sh")
    account = ("--agree-tos", "--register-unsafely-without-email")
    where = ("--webroot", "--webroot-path", order.webroot, "--domain", order.name, "--cert-name", order.name)
    return ClientRecipe(
        issue=(("certbot", "certonly", *common, *account, *where, "--key-type", "ecdsa"),),
        # Before 4.0 certbot thinks in 30 days: each run of the timer is due, which is what short leaves need.
        renew=(("certbot", "renew", *common, "--cert-name", order.name, "--no-random-sleep-on-renew"),),
        locate='key="$RENEWED_LINEAGE/privkey.pem" chain="$RENEWED_LINEAGE/fullchain.pem"',
        environment={"REQUESTS_CA_BUNDLE": order.root},
        package="certbot",
    )


def acme_sh(order: Order) -> ClientRecipe:
    state = f"{order.folder}/acme.sh"
    common = ("acme.sh", "--home", state, "--server", order.directory, "--ca-bundle", order.root)
    return ClientRecipe(
        issue=(
            (*common, "--issue", "-d", order.name, "-w", order.webroot, "--keylength", "ec-256", "--force"),
            (f"{order.folder}/deploy.sh",),
        ),
        # acme.sh counts in days, and our leaves in hours: the timer decides, so --force.
        renew=((*common, "--renew", "-d", order.name, "--ecc", "--force"), (f"{order.folder}/deploy.sh",)),
        locate=f"key='{state}/{order.name}_ecc/{order.name}.key' chain='{state}/{order.name}_ecc/fullchain.cer'",
        package="acme.sh",
    )


def lego(order: Order) -> ClientRecipe:
    state = f"{order.folder}/lego"
    common = (
        "lego",
        "--server",
        order.directory,
        "--email",
        f"hostmaster@{order.name}",
        "--accept-tos",
        "--path",
        state,
        "--domains",
        order.name,
        "--key-type",
        "ec256",
        "--http",
        "--http.webroot",
        order.webroot,
    )
    certificates = f"{state}/certificates/{order.name}"
    return ClientRecipe(
        issue=((*common, "run"), (f"{order.folder}/deploy.sh",)),
        renew=((*common, "renew", "--days", "365", "--no-random-sleep"), (f"{order.folder}/deploy.sh",)),
        locate=f"key='{certificates}.key' chain='{certificates}.crt'",
        environment={"LEGO_CA_CERTIFICATES": order.root},
        package="lego",
    )


CLIENTS: dict[str, Callable[[Order], ClientRecipe]] = {"certbot": certbot, "acme.sh": acme_sh, "lego": lego}
