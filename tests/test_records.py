"""The types of documents and the schema that is generated from them say the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT
from jsonschema import Draft202012Validator
from pydantic import ValidationError

Module = Callable[[str], ModuleType]
OLDER = ROOT / "tests/data/documents-0.2"


def older(module: Module) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each document that 0.2 wrote, with its step."""
    steps = {path.name: step for step, path in module("artifacts").DOCUMENTS.items()}
    for path in sorted(OLDER.glob("*.json")):
        if path.name in steps:  # not champion.json, which is a part of others
            yield steps[path.name], json.loads(path.read_text("utf-8"))


def test_every_kind_of_document_of_the_last_release_is_among_them(module: Module) -> None:
    """But for `image`, which takes a registry and a builder, and those that came later."""
    absent = {"controls", "explain", "image", "privacy", "robustness", "validate_source"}
    assert {step for step, _ in older(module)} == set(module("artifacts").DOCUMENTS) - absent
    statuses = {
        alarm["status"]
        for step, fields in older(module)
        if step == "monitor"
        for alarm in fields["alarms"]
    }
    assert statuses == {"decided", "told"}


def test_a_document_of_the_last_release_is_read_and_its_bytes_stay_the_same(
    module: Module,
) -> None:
    records = module("records")
    for step, fields in older(module):
        document = records.DOCUMENTS[step].model_validate(fields)
        envelope = {name: getattr(document, name) for name in records.Document.envelope}
        assert json.dumps(document.content() | envelope) == json.dumps(fields)


def is_read(record: Any, fields: dict[str, Any]) -> bool:
    """Check whether a document has a type's fields and values."""
    try:
        record.model_validate(fields)
    except ValidationError:
        return False
    return True


def test_types_and_schema_refuse_the_same(module: Module) -> None:
    records = module("records")
    schema = json.loads(module("artifacts").SCHEMA.read_text("utf-8"))
    for step, fields in older(module):
        validator = Draft202012Validator({**schema, "$ref": f"#/$defs/{step}"})
        own = [name for name in fields if name not in records.Document.envelope]
        wrong = [fields | {name: value} for name in own for value in (object, [None])]
        wrong += [{k: v for k, v in fields.items() if k != name} for name in own]
        wrong += [fields | {"colour": "red"}, fields | {"step": "other"}, {}]
        assert validator.is_valid(fields)
        for name in own:  # some may be negative
            changed = fields | {name: -1.5}
            assert validator.is_valid(changed) == is_read(records.DOCUMENTS[step], changed), name
        for changed in wrong:
            with pytest.raises(ValidationError):
                records.DOCUMENTS[step].model_validate(changed)
            assert not validator.is_valid(changed), (step, changed)


def test_a_document_without_its_envelope_is_not_read(
    module: Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    artifacts = module("artifacts")
    path = tmp_path / "split.json"
    monkeypatch.setattr(artifacts, "DOCUMENTS", {"split": path})
    fields = json.loads((OLDER / "split.json").read_text("utf-8"))
    path.write_text(json.dumps(fields))
    assert artifacts.read(module("records").SplitDocument).train == fields["train"]
    for name in module("records").Document.envelope:
        path.write_text(json.dumps({k: v for k, v in fields.items() if k != name}))
        with pytest.raises(module("exceptions").UsageError, match="cannot be read"):
            artifacts.read_step("split")


def test_what_is_none_is_left_out_only_where_it_may_be_absent(module: Module) -> None:
    records = module("records")
    champion = records.Champion(
        version="v1", package_digest=f"sha256:{'0' * 64}", model_digest=f"sha256:{'1' * 64}"
    )
    interval = records.Interval(value=None, low=None, high=None)
    best = records.BestComparison(champion=champion, skill=interval, recipes=None, unseen=3)
    fields = best.model_dump()
    assert "recipes" not in fields
    assert fields["skill"] == {"value": None, "low": None, "high": None}
    check = records.Check(check="x", value=None, rule="≥", threshold=0, verdict="refused")
    assert json.dumps(check.model_dump()["threshold"]) == "0"
    ratio = records.Rarest(class_="a", rows=1)
    assert ratio.model_dump() == {"class": "a", "rows": 1}
