"""Adding a provisioner type is adding one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepca_pki import provisioners
from stepca_pki.config.load import load_text
from stepca_pki.config.schema import json_schema
from stepca_pki.errors import ConfigError
from stepca_pki.provisioners.registry import kinds

TOY = '''
from typing import Any, ClassVar, Literal
from stepca_pki.provisioners.base import Provisioner


class Toy(Provisioner):
    """A type that no other file knows."""

    kind: ClassVar[str] = "toy"
    step_ca_type: ClassVar[str] = "TOY"
    type: Literal["toy"] = "toy"
    colour: str
    """Of the toy."""

    def details(self, *_: Any) -> dict[str, Any]:
        return {"colour": self.colour}
'''

TEXT = "name: A\nprovisioners:\n  - {type: toy, name: t, colour: red}\n"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(provisioners, "__path__", [*provisioners.__path__, str(tmp_path)])
    kinds.cache_clear()
    yield
    kinds.cache_clear()


def test_without_its_file_it_is_unknown():
    with pytest.raises(ConfigError, match="unknown"):
        load_text(TEXT, Path("pki.yaml"))


@pytest.mark.usefixtures("toy")
def test_with_its_file_it_is_parsed_rendered_and_described():
    (item,) = load_text(TEXT, Path("pki.yaml")).provisioners

    assert item.to_ca_json() == {"type": "TOY", "name": "t", "colour": "red"}
    assert json_schema()["$defs"]["provisioner_toy"]["properties"]["colour"]["description"] == "Of the toy."
