"""The embedded SoftHSM2: its configuration, and tokens that appear whole or not at all.

SoftHSM2 initialises a token in many small writes; cut off in between it leaves one that refuses its own PIN. So a
token is made in a folder of its own, proved by a login (init_token does), and renamed into place: SoftHSM2 keeps
each token in one sub-folder, whose name does not matter to it (its source, src/lib/object_store/ObjectStore.cpp).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from stepca_pki.config.model import TokenRef
from stepca_pki.errors import FileRefused, HsmError
from stepca_pki.files import SECRET_FOLDER, ensure_folder, sync_folder, write_atomic
from stepca_pki.hsm.token import init_token
from stepca_pki.plan.decide import softhsm2_conf


def init_embedded_token(ref: TokenRef, tokens: Path, pin: str, so_pin: str) -> None:
    """Make the token *ref* in the folder *tokens*. The caller has seen that it is not there."""
    staging = tokens / f".making-{ref.label}"  # SoftHSM2 passes over a folder without a token in it
    _remove(staging)  # left by a run that was cut off: no key was ever made in it
    ensure_folder(staging, SECRET_FOLDER)
    conf = staging / "softhsm2.conf"
    write_atomic(conf, softhsm2_conf(staging))
    staged = ref.model_copy(update={"environment": {**ref.environment, "SOFTHSM2_CONF": str(conf)}})
    init_token(staged, pin, so_pin)
    _move_into_place(staging, tokens)
    _remove(staging)


def _move_into_place(staging: Path, tokens: Path) -> None:
    made = [path for path in staging.iterdir() if path.is_dir()]
    if len(made) != 1:
        raise HsmError(f"{staging}: SoftHSM2 made {len(made)} folders instead of one", fix="use SoftHSM2 2.5 or newer")
    sync_folder(made[0])
    try:
        made[0].rename(tokens / made[0].name)
    except OSError as error:
        raise FileRefused(tokens, error.strerror or str(error)) from None
    sync_folder(tokens)


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        raise FileRefused(folder, "is a symbolic link", fix="remove it")
    shutil.rmtree(folder, ignore_errors=True)
