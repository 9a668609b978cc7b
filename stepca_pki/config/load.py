"""Reading pki.yaml: bounded, exact, and every fault told at once with its line.

step-ca ignores what it does not know, so this loader is the only guard.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from stepca_pki.config.checks import Finding, contradictions
from stepca_pki.config.model import Authority
from stepca_pki.errors import ConfigError, Fault
from stepca_pki.files import read_bounded

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 20
MAX_NODES = 200_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Place = tuple[str | int, ...]


def load(path: Path) -> Authority:
    """Return the authority that the file declares. Raises ConfigError with all faults, FileRefused."""
    data = read_bounded(path, MAX_BYTES)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Fault(path, line, "", "is not UTF-8 text", "save it as UTF-8")]) from None
    return load_text(text, path)


def load_text(text: str, file: Path) -> Authority:
    """Return the authority that *text* declares; *file* is only named in faults."""
    document = _parse(text, file)
    try:
        authority = Authority.model_validate(document.value)
    except ValidationError as error:
        findings = [*(_finding(fault) for fault in error.errors()), *contradictions(document.value)]
    else:
        findings = list(contradictions(authority.model_dump()))
    if findings:
        faults = [document.fault(file, finding) for finding in dict.fromkeys(findings)]
        raise ConfigError(sorted(faults, key=lambda fault: fault.line))
    return authority


# --- YAML ------------------------------------------------------------------------------------------


@dataclass
class _Document:
    """The plain values of a file, and the line (from 1) of each key and item."""

    value: Any
    lines: dict[Place, int] = field(default_factory=dict)

    def fault(self, file: Path, finding: Finding) -> Fault:
        place = finding.place
        while place and place not in self.lines:
            place = place[:-1]  # a missing key is reported at its parent
        return Fault(file, self.lines.get(place, 1), _where(finding.place), finding.problem, finding.fix)


def _where(place: Place) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def _parse(text: str, file: Path) -> _Document:
    def refuse(mark: Any, problem: str, fix: str) -> ConfigError:
        return ConfigError([Fault(file, 0 if mark is None else mark.line + 1, "", problem, fix)])

    try:
        _check_events(text, refuse)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        raise refuse(mark, f"is not YAML: {problem}", "correct the line; strings with ':' or '#' need quotes") from None
    if not isinstance(node, yaml.MappingNode):
        raise refuse(getattr(node, "start_mark", None), "is not a mapping of keys", "start with 'name: …'")
    document = _Document(None, {(): 1})
    faults: list[Fault] = []
    document.value = _plain(node, (), document.lines, faults, file)
    if faults:
        raise ConfigError(faults)
    return document


def _check_events(text: str, refuse: Any) -> None:
    """Refuse what could make the composer work long or deep, before it works: events cost no memory."""
    depth = count = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise refuse(event.start_mark, "anchors and aliases are not used here", "write the value out")
        if tag := getattr(event, "tag", None):
            raise refuse(event.start_mark, f"the tag {tag} is not used here", "remove it")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        count += isinstance(event, yaml.NodeEvent)
        if depth > MAX_DEPTH:
            raise refuse(event.start_mark, f"is nested deeper than {MAX_DEPTH} levels", "check the indentation")
        if count > MAX_NODES:
            raise refuse(event.start_mark, f"has more than {MAX_NODES} values", "split it into several authorities")
        if documents > 1:
            raise refuse(event.start_mark, "a second document starts here", "remove the line '---'")


_SCALARS = yaml.SafeLoader("")


def _plain(node: Any, place: Place, lines: dict[Place, int], faults: list[Fault], file: Path) -> Any:
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[(*place, index)] = item.start_mark.line + 1
            items.append(_plain(item, (*place, index), lines, faults, file))
        return items
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(node, place, lines, faults, file)
    try:
        return _SCALARS.construct_object(node)
    except ValueError:  # such as the date 2026-13-45
        return node.value


def _plain_mapping(node: Any, place: Place, lines: dict[Place, int], faults: list[Fault], file: Path) -> Any:
    answer: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
        if key in answer:
            first = lines[(*place, key)]
            problem = f"the key '{key}' stands here again (first in line {first})"
            faults.append(Fault(file, line, _where((*place, key)), problem, "remove one of them"))
            continue
        lines[(*place, key)] = line
        answer[key] = _plain(value_node, (*place, key), lines, faults, file)
    return answer


# --- pydantic's findings in plain words ------------------------------------------------------------

_UNION_TAGS = {"badgerv2", "postgresql"}


def _finding(error: Any) -> Finding:
    place = tuple(part for part in error["loc"] if part not in _UNION_TAGS)
    problem, fix = _words(error, place)
    return Finding(place, problem, fix)


def _words(error: Any, place: Place) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx", {})
    if error["input"] is None and kind != "missing":
        return "is empty", "give it a value, or remove the key"
    if kind == "extra_forbidden":
        return _unknown(place)
    if kind == "missing":
        return "is missing", f"add '{place[-1]}'"
    if kind in ("string_type", "str_type"):
        return f"must be text, and is {_yaml_kind(error['input'])}", "write it in quotes"
    if kind == "value_error":
        problem, _, fix = str(context.get("error", error["msg"])).partition("; ")
        return problem, fix or "correct the value"
    if kind in ("literal_error", "enum"):
        expected = str(context.get("expected", ""))
        return f"is not one of the possible values{_close(error['input'], expected)}", f"write one of {expected}"
    if kind == "string_pattern_mismatch":
        return "has characters that are not allowed here", f"it must match {context.get('pattern')}"
    return _lower_first(error["msg"]), "correct the value"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:].replace("Input should", "it should")


def _yaml_kind(value: object) -> str:
    names = {
        bool: "a truth value (YAML reads yes, no, on and off so)",
        int: "a number",
        float: "a number",
        list: "a list",
    }
    return next(
        (name for kind, name in names.items() if type(value) is kind), "nothing" if value is None else "a mapping"
    )


def _close(value: object, expected: str) -> str:
    choices = [choice.strip(" '") for choice in expected.replace(" or ", ",").split(",")]
    near = difflib.get_close_matches(str(value), choices, 1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _unknown(place: Place) -> tuple[str, str]:
    name = str(place[-1])
    known = list(_known_fields(place[:-1]))
    near = difflib.get_close_matches(name, known, 1)
    fix = f"did you mean '{near[0]}'?" if near else (f"the keys here are: {', '.join(known)}" if known else "remove it")
    return f"the key '{name}' is unknown", fix


def _known_fields(place: Place) -> Iterator[str]:
    """The keys that the model has at *place*, as far as it can be followed without the values."""
    from stepca_pki.provisioners.registry import kinds

    model: Any = Authority
    for part in place:
        if part == "provisioners":
            names = {name for kind in kinds().values() for name in kind.model_fields}
            yield from sorted(names) if len(place) == 2 else ()
            if len(place) > 2 and place[2] == "claims":
                from stepca_pki.values import Claims

                yield from Claims.model_fields
            return
        model = _model_in(model.model_fields[part].annotation) if part in getattr(model, "model_fields", {}) else None
        if model is None:
            return
    yield from model.model_fields


def _model_in(annotation: Any) -> Any:
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model_in(part)) is not None), None)
