"""What a rule of `problem/schema.py` is called changes nothing: rules go by their kind."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from test_champion import HELD, rival

Module = Callable[[str], ModuleType]
PLAIN = "a trip ends elsewhere"
# As rules of the contract are called, or begin; and as pandera calls its own.
NAMES = [
    *("missing exits", "missing column", "extra column"),
    *("not of age", "not of type number", "not of type category"),
    *("null", "new category", "below 0", "duplicate key", "too few rows", "stale newest row"),
    *("multiple_fields_uniqueness", "not_nullable", "0", "1"),
]
named = pytest.mark.parametrize("name", NAMES)


def contract(module: Module) -> Any:
    columns = {
        "id": {"type": "integer"},
        "age": {"type": "number", "min": 0.0, "max": 99.0},
        "origin": {"type": "category", "categories": ["A", "B"]},
        "dest": {"type": "category", "nullable": True},
        "y": {"type": "number"},
    }
    return module("config").Data.model_validate(
        {
            "source": "x.csv",
            "target": "y",
            "task": "regression",
            "split": {"by": "stratified"},
            "keys": ["id"],
            "min_rows": 100,
            "columns": columns,
        }
    )


def rules(name: str) -> Callable[[Any], Mapping[str, pl.Expr]]:
    """Return the rules of `problem/schema.py`: one of this name, and one more."""

    def by_name(columns: Any) -> Mapping[str, pl.Expr]:
        if not {"origin", "dest"} <= set(columns):
            return {}
        elsewhere = pl.col("origin") != pl.col("dest")
        return {name: elsewhere, "an age is not 7": pl.col("age") != 7}

    return by_name


def tables() -> list[pl.DataFrame]:
    """Return tables of texts that break rules: of two batches, each one as it is drawn."""
    draw = random.Random(83)
    result = []
    for fault in ("none", "mistyped", "missing", "extra"):
        rows = 60
        table = pl.DataFrame(
            {
                "id": [str(draw.randrange(50)) for _ in range(rows)],
                "age": [draw.choice(["-1", "7", "30", "120", ""]) for _ in range(rows)],
                "origin": [draw.choice(["A", "B", "C", ""]) for _ in range(rows)],
                "dest": [draw.choice(["A", "B", ""]) for _ in range(rows)],
                "y": ["1"] * rows,
            }
        )
        if fault == "mistyped":
            table = table.with_columns(y=pl.Series(["old", *["1"] * (rows - 1)]))
        elif fault == "missing":
            table = table.drop("y")
        elif fault == "extra":
            table = table.with_columns(more=pl.lit("z"))
        result.append(table)
    return result


def plain(failures: list[Any]) -> list[Any]:
    """Return failures as if the user's rule had a plain name."""
    assert any(failure["kind"] == "custom" for failure in failures)
    custom = [failure for failure in failures if failure["kind"] == "custom"]
    renamed = {id(failure): PLAIN for failure in custom if failure["rule"] != "an age is not 7"}
    return [failure | {"rule": renamed.get(id(failure), failure["rule"])} for failure in failures]


@named
def test_rows_get_the_same_verdict_whatever_a_rule_is_called(
    module: Module, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    validate = module("pipeline.validate")
    typed = module("pipeline.ingest").typed
    data = contract(module)

    def judged(name: str, table: pl.DataFrame) -> list[Any]:
        monkeypatch.setattr(module("problem"), "rules", rules(name))
        rows = typed(table, data)
        whole = plain(validate.check(rows, data)["failures"])
        alone = plain(validate.failures(rows, data, rules(name)))
        lines = [
            re.sub(rf"(rows?: ){re.escape(name)}$", rf"\1{PLAIN}", line)
            for line in validate.describe(validate.failures(rows, data, rules(name)))
        ]
        return [whole, alone, lines]

    for table in tables():
        assert judged(name, table) == judged(PLAIN, table)


@named
def test_a_file_in_parts_gets_the_same_verdict_whatever_a_rule_is_called(
    module: Module, name: str
) -> None:
    bulk = module("pipeline.bulk")
    validate = module("pipeline.validate")
    data = contract(module)

    def judged(name: str, table: pl.DataFrame) -> list[Any]:
        model = SimpleNamespace(
            read=lambda raw: module("pipeline.ingest").typed(raw, data),
            failures=lambda rows: validate.failures(rows, data, rules(name)),
            request_contract=data,
            rules=rules(name),
        )
        failures = bulk.Failures(model)
        for part in (table[:30], table[30:]):
            failures.judge(part)
        return plain(failures.in_order())

    for table in tables():
        assert judged(name, table) == judged(PLAIN, table)


@named
def test_a_source_of_partitions_gets_the_same_verdict_whatever_a_rule_is_called(
    module: Module, name: str
) -> None:
    partitioned = module("partitioned.judged")
    data = contract(module)

    def judged(name: str, table: pl.DataFrame) -> list[Any]:
        total = partitioned.Judged()
        for part in (table[:30], table[30:]):
            batch = partitioned.Judged()
            batch.add_batch(module("pipeline.ingest").typed(part, data), data, rules(name))
            total.add(batch)
        return [total.broken, plain(total.in_order(data, rules(name)))]

    for table in tables():
        assert judged(name, table) == judged(PLAIN, table)


@pytest.mark.parametrize("name", ["missing exits", "not of age"])
def test_a_champion_whose_own_rule_the_rows_break_is_compared(module: Module, name: str) -> None:
    challenger, champion, config = rival(module, np.ones(HELD, bool), noise=3.0)
    settings = module("config.delivery").Delivery()

    def compared(**changes: Any) -> Any:
        model = dataclasses.replace(champion.model, **changes)
        other = champion._replace(model=model)
        return module("pipeline.compare").compare(challenger, other, config, settings)

    assert compared(rules=lambda _: {name: pl.col("x0") > 0}).kind == "compared"
    column = module("config").Column(type="number")
    narrow = champion.model.request_contract
    wider = narrow.model_copy(update={"columns": narrow.columns | {"exits": column}})
    unreadable = compared(request_contract=wider)
    assert (unreadable.kind, unreadable.reason) == ("unreadable", "column exits: missing column")


@named
def test_a_file_that_breaks_a_rule_of_the_user_is_told_from_a_wrong_contract(
    module: Module, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    onboard = module("contract.onboard")
    usage_error = module("exceptions").UsageError
    monkeypatch.setattr(module("contract.example"), "has_schema", lambda: False)
    data = contract(module).model_copy(update={"min_rows": 1})
    good = {"id": ["1", "2"], "age": ["1", "2"], "origin": ["A", "B"], "y": ["1", "2"]}

    def onboarded(**columns: list[str]) -> None:
        monkeypatch.setattr(module("problem"), "rules", rules(name))
        onboard.require_kept(pl.DataFrame(good | columns), data)

    onboarded(dest=["B", "A"])
    with pytest.raises(usage_error, match=r"breaks a rule of problem/schema\.py"):
        onboarded(dest=["A", "A"])
    with pytest.raises(usage_error, match="please report this"):
        onboarded(dest=["B", "A"], origin=["A", "C"])
    with pytest.raises(usage_error, match="please report this"):
        onboarded(dest=["A", "A"], age=["1", "100"])


def test_a_document_may_lack_the_kind_of_a_failure_and_may_not_invent_one(module: Module) -> None:
    records = module("records")
    fields: dict[str, Any] = {"column": None, "rule": "x", "count": 1, "samples": [], "rows": []}
    failure = records.Failure.model_validate(fields)
    assert failure.kind is None
    assert failure.model_dump() == fields
    with pytest.raises(ValueError, match="kind"):
        records.Failure.model_validate(fields | {"kind": "missing exits"})


def test_the_kinds_are_those_that_the_reference_names(module: Module) -> None:
    text = (ROOT / "docs/reference.md").read_text("utf-8")
    table = text.split("## Contract rules")[1].split("## The split")[0]
    for kind in get_args(module("records").RuleKind):
        assert f"`{kind}` |" in table or f"`{kind}`," in table, kind
