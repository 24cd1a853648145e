"""Champion against challenger, end to end: one project, model after model."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import yaml
from conftest import ROOT, Copy

GOOD = {"max_iter": 300, "learning_rate": 0.03, "max_leaf_nodes": 15}
WEAK = {"max_iter": 1, "max_leaf_nodes": 2}
FLIGHTS = ROOT / "template/data/raw/flights.csv"


def edit(path: Path, **changes: Any) -> None:
    content = yaml.safe_load(path.read_text("utf-8")) | changes
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")


@pytest.fixture(scope="module")
def project(project: Callable[[int], Any], tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Return a project whose gate is so loose that all depends on the champion, a weak model."""
    made = project(1)
    copy = Copy(made, made.copy(tmp_path_factory.mktemp("compare") / "project"))
    easy = {"metric": "roc_auc", "thresholds": {"roc_auc": 0.5}, "slice_skill": -0.99}
    easy |= {"max_calibration_error": 1.0, "linear_tolerance": 1.0, "max_latency_ms": 5_000.0}
    edit(copy.path / "config/gate.yaml", **easy)
    return copy


def trained(copy: Copy, exits: int, **params: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Run with such params: what the comparison says, and what the gate says of each check."""
    edit(copy.path / "config/model.yaml", params=params)
    copy.ml("run", exits=exits)
    gate = copy.read("gate")
    assert gate["comparison"] == copy.read("compare")["comparison"]
    return gate["comparison"], {check["check"]: check["verdict"] for check in gate["checks"]}


@pytest.mark.slow
def test_a_better_challenger_is_accepted_a_degraded_one_refused_and_none_meets_itself(
    project: Copy,
) -> None:
    # The first: said to be that, and there is nothing to compare with.
    comparison, _ = trained(project, 0, **WEAK)
    assert comparison == {"kind": "first", "champion": None}
    first = project.ml("register", exits=0).stdout.split()[-1]
    project.ml("promote", exits=0)

    # A better one.
    comparison, checks = trained(project, 0, **GOOD)
    assert (comparison["kind"], comparison["champion"]["version"]) == ("compared", first)
    assert comparison["skill"]["low"] > 0
    assert comparison["challenger"]["value"] > comparison["own"]["value"]
    assert checks["skill over the champion, lower end"] == "passed"
    better = project.ml("register", exits=0).stdout.split()[-1]
    project.ml("promote", exits=0)
    assert better in project.ml("models", exits=0).stdout

    # A degraded one is refused by the champion alone, and is not registered.
    comparison, checks = trained(project, 1, **WEAK)
    assert comparison["champion"]["version"] == better
    refused = {name for name, verdict in checks.items() if verdict == "refused"}
    assert refused
    assert all("champion" in name for name in refused)
    assert "the gate has not passed" in project.ml("register", exits=1).stderr
    # What was compared with an earlier champion does not become champion: the weak one is back.
    assert "was champion before" in project.ml("promote", first, exits=1).stderr

    # The champion, trained again, is not compared with itself.
    comparison, checks = trained(project, 0, **GOOD)
    assert comparison["kind"] == "same"
    assert "skill" not in comparison
    assert not any("champion" in name for name in checks)


@pytest.mark.slow
def test_a_champion_that_cannot_read_the_new_data_is_said_and_replaced_by_name_only(
    project: Copy, tmp_path: Path
) -> None:
    copy = project.again(tmp_path / "copy")
    if not (copy.path / "registry").exists():  # this test alone
        trained(copy, 0, **GOOD)
        copy.ml("register", exits=0)
        copy.ml("promote", exits=0)
    data = yaml.safe_load((copy.path / "config/data.yaml").read_text("utf-8"))
    del data["columns"]["seats"]
    edit(copy.path / "config/data.yaml", columns=data["columns"], ignored={"seats": "gone"})
    copy.ml("run", exits=1)
    comparison = copy.read("compare")["comparison"]
    version = comparison["champion"]["version"]
    assert (comparison["kind"], comparison["reason"]) == (
        "unreadable",
        "column seats: missing column",
    )
    edit(copy.path / "config/delivery.yaml", accept_incomparable="20130101-000000-00000000")
    copy.ml("run", exits=1)
    edit(copy.path / "config/delivery.yaml", accept_incomparable=version)
    copy.ml("run", exits=0)


@pytest.mark.slow
def test_rows_are_judged_alike_one_by_one_and_as_a_table(
    module: Callable[[str], ModuleType],
) -> None:
    """What training refuses by pandera, serving refuses by itself, and says the same of it."""
    validate = module("pipeline.validate")
    ingest = module("pipeline.ingest")
    rules = module("problem.schema").rules
    raw = yaml.safe_load((ROOT / "template/config/data.yaml").read_text("utf-8"))
    data = module("config").Data.model_validate(raw).for_predicting()
    seed = int(os.environ.get("SEED", random.randrange(1_000_000)))
    print(f"SEED={seed}")
    draw = random.Random(seed)
    whole = pl.read_csv(FLIGHTS, infer_schema=False).head(200)
    broken = 0
    for _ in range(60):
        rows = {name: whole[name].to_list() for name in whole.columns}
        for name in draw.sample(sorted(data.columns), draw.randrange(4)):
            for index in draw.sample(range(200), draw.randrange(1, 4)):
                rows[name][index] = draw.choice(["", "-1", "999999", "new", "EWR"])
        if draw.random() < 0.2:
            del rows[draw.choice(sorted(data.columns))]
        typed = ingest.typed(pl.DataFrame(rows), data)
        table = validate.check(typed, data)["failures"]
        alone = validate.failures(typed, data, rules)
        verdicts = [
            {(f["column"], f["rule"], f["count"]) for f in failures} for failures in (table, alone)
        ]
        assert verdicts[0] == verdicts[1]
        broken += bool(alone)
    assert 10 < broken < 60
