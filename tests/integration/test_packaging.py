"""`pip install .` gives a working pki: everything it needs is in the wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(CHECKOUT / "stepca_pki", folder / "src" / "stepca_pki")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, folder / "src")
    words = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, folder / "src"]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_has_every_file_of_the_package(wheel: Path):
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / "stepca_pki").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }

    assert ours <= inside


def test_pki_runs_from_a_fresh_environment(wheel: Path, tmp_path: Path):
    """The dependencies are lent by this environment; the package itself is installed anew."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python3*/site-packages"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--ignore-installed", "--no-deps", "--no-index", "--quiet", "--prefix", tmp_path / "venv", wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "lent.pth").write_text(ours + "\n")

    done = subprocess.run(
        [python, tmp_path / "venv" / "bin" / "pki", "init", "--dry-run", "--yes", "--home", tmp_path / "ca"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    where = subprocess.run(
        [python, "-c", "import stepca_pki; print(stepca_pki.__path__[0])"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert where.stdout.startswith(str(tmp_path))
