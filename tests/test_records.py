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
from releases import newest

Module = Callable[[str], ModuleType]
OLDER = {version: ROOT / f"tests/data/documents-{version}" for version in ("0.2", "0.3")}
releases_with_documents = pytest.mark.parametrize("version", OLDER)


def older(module: Module, version: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each document that a release wrote, with its step."""
    steps = {path.name: step for step, path in module("artifacts").DOCUMENTS.items()}
    for path in sorted(OLDER[version].glob("*.json")):
        if path.name in steps:  # not champion.json, which is a part of others
            yield steps[path.name], json.loads(path.read_text("utf-8"))


@releases_with_documents
def test_every_kind_of_document_of_a_release_is_among_them(module: Module, version: str) -> None:
    """But for `controls` and `image`, which take pytest and a builder, and those of later."""
    absent = {"controls", "explain", "image", "privacy", "robustness", "validate_source"}
    steps = {step for step, _ in older(module, version)}
    assert steps == set(module("artifacts").DOCUMENTS) - absent


def test_there_are_documents_of_the_last_release() -> None:
    assert newest().rpartition(".")[0] == list(OLDER)[-1]


def test_alarms_of_0_2_are_among_them_under_the_name_that_they_had(module: Module) -> None:
    (monitor,) = [fields for step, fields in older(module, "0.2") if step == "monitor"]
    assert {alarm["status"] for alarm in monitor["alarms"]} == {"decided", "told"}


@releases_with_documents
def test_a_document_of_a_release_is_read_and_its_bytes_stay_the_same(
    module: Module, version: str
) -> None:
    records = module("records")
    for step, fields in older(module, version):
        document = records.DOCUMENTS[step].model_validate(fields)
        envelope = {name: getattr(document, name) for name in records.Document.envelope}
        assert json.dumps(document.content() | envelope) == json.dumps(fields)


def test_a_verdict_of_0_3_whose_ids_repeat_is_read(module: Module) -> None:
    """Those of the best champion so far had the ids of the champion's."""
    fields = json.loads((OLDER["0.3"] / "gate.json").read_text("utf-8"))
    checks = [check | {"id": "champion"} for check in fields["checks"]]
    gate = module("records").GateDocument.model_validate(fields | {"checks": checks})
    assert {check.id for check in gate.checks} == {"champion"}


def is_read(record: Any, fields: dict[str, Any]) -> bool:
    """Check whether a document has a type's fields and values."""
    try:
        record.model_validate(fields)
    except ValidationError:
        return False
    return True


@releases_with_documents
def test_types_and_schema_refuse_the_same(module: Module, version: str) -> None:
    records = module("records")
    schema = json.loads(module("artifacts").SCHEMA.read_text("utf-8"))
    for step, fields in older(module, version):
        validator = Draft202012Validator({**schema, "$ref": f"#/$defs/{step}"})
        own = [name for name in fields if name not in records.Document.envelope]
        wrong = [fields | {name: value} for name in own for value in (object, [None])]
        needed = [name for name in own if name in schema["$defs"][step]["required"]]
        assert needed
        wrong += [{k: v for k, v in fields.items() if k != name} for name in needed]
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
    fields = json.loads((OLDER["0.2"] / "split.json").read_text("utf-8"))
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
