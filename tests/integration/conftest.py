"""Parts that only the tests on real things need."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def compile_library(tmp_path: Path) -> Callable[[str, str], Path]:
    """Compile C text to a shared library: modules that misbehave on purpose."""

    def build(name: str, text: str) -> Path:
        source, library = tmp_path / f"{name}.c", tmp_path / f"{name}.so"
        source.write_text(text)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
        return library

    return build
