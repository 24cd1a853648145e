"""What the gate reads is defined, and what it says is the reason."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics_documents import metrics_document

Module = Callable[[str], ModuleType]
GATE = {"metric": "roc_auc", "thresholds": {"roc_auc": 0.6}}


def config(module: Module, task: str = "binary", **gate: Any) -> Any:
    """Configure a project with a target, a number and a place."""
    c = module("config")
    kind = c.Column(type="number" if task == "regression" else "category")
    data = c.Data(
        source="rows.csv",
        target="y",
        task=task,
        classes={"binary": ["well", "sick"], "multiclass": ["a", "b", "c"]}.get(task, []),
        split=c.Split(by="stratified"),
        columns={"x": c.Column(type="number"), "place": c.Column(type="category"), "y": kind},
    )
    metric = c.METRICS[task][0]
    values = {"metric": metric, "thresholds": {metric: 0.0}} | gate
    return c.Config(data=data, model=c.Model(), gate=c.Gate.model_validate(values))


def judged(module: Module, y: Any, p: Any, linear: Any = None, **gate: Any) -> Any:
    """Judge probabilities of the second class, or values."""
    task = "regression" if y.dtype == np.float64 else "binary"

    def both(values: Any) -> Any:
        return values if task == "regression" else np.column_stack([1 - values, values])

    constant = np.full(len(y), y.mean())
    others = {"constant": both(constant), "linear": both(constant if linear is None else linear)}
    rows = pl.DataFrame({"place": ["a"] * len(y)})
    whole = config(module, task, **gate)
    scores = module("pipeline.evaluate").judge(y, both(p), others, rows, whole)
    return metrics_document(module, scores)


def refused(module: Module, document: Any, **gate: Any) -> list[Any]:
    task = "regression" if document.task == "regression" else "binary"
    checks = module("pipeline.gate").decide(document, config(module, task, **gate).gate)
    return [check for check in checks if check.verdict == "refused"]


def test_a_perfect_model_passes_beside_a_perfect_linear_one(module: Module) -> None:
    y = np.arange(200) % 2
    p = np.where(y == 1, 0.999, 0.001)
    assert refused(module, judged(module, y, p, linear=p)) == []
    # And so does one that is a hair behind it.
    almost = p.copy()
    almost[0] = 0.9995
    document = judged(module, y, almost, linear=p)
    assert document.metrics["roc_auc"].value < 1
    assert refused(module, document) == []


def test_a_perfect_regression_passes_beside_a_perfect_linear_one(module: Module) -> None:
    y = np.linspace(0, 1, 200)
    assert refused(module, judged(module, y, y, linear=y), thresholds={"rmse": 1e-9}) == []
    document = judged(module, y, y + 1e-6 * np.cos(np.arange(200)), linear=y)
    assert refused(module, document, thresholds={"rmse": 1e-3}) == []


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.zeros(60, dtype=np.int64), "the holdout has a single value of y, well, in all 60 rows"),
        (np.full(60, 2.5), "the holdout has a single value of y, 2.5, in all 60 rows"),
        (np.linspace(-2e300, 1e300, 60), "column y has values such as 2e+300"),
    ],
    ids=["one class", "one number", "values near 1e300"],
)
def test_what_cannot_be_judged_is_a_sentence(module: Module, y: Any, words: str) -> None:
    with pytest.raises(module("exceptions").UsageError, match=words.replace("+", r"\+")):
        judged(module, y, np.full(60, 0.5))


@settings(deadline=None)
@given(
    seed=st.integers(0, 999),
    rows=st.integers(2, 40),
    scale=st.sampled_from([1e-300, 1e-9, 1.0, 1e9, 1e149]),
)
def test_no_regression_is_too_odd_for_a_verdict(
    module: Module, seed: int, rows: int, scale: float
) -> None:
    random = np.random.default_rng(seed)
    y = scale * random.integers(0, 3, rows).astype(float)
    y[:2] = 0.0, scale
    p = scale * random.integers(0, 3, rows).astype(float)
    document = judged(module, y, p, linear=y)
    for check in refused(module, document):
        assert module("pipeline.gate_text").sentence(check)
        assert check.value is None or np.isfinite(check.value)


@settings(deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(2, 40))
def test_no_two_classes_are_too_odd_for_a_verdict(module: Module, seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, rows)
    y[:2] = 0, 1
    document = judged(module, y, random.integers(0, 3, rows) / 2, linear=y * 1.0)
    for check in refused(module, document):
        assert module("pipeline.gate_text").sentence(check)
        assert check.value is None or np.isfinite(check.value)


def test_the_reason_of_a_refusal_is_the_one_that_led_to_it(module: Module) -> None:
    random = np.random.default_rng(1)

    def reason(y: Any, p: Any, linear: Any = None, **gate: Any) -> str:
        document = judged(module, y, p, linear)
        failed = refused(module, document, **gate)
        text: str = module("pipeline.gate_text").reason(document, failed)
        return text

    y = random.integers(0, 2, 1_000)
    noise = random.random(1_000)
    signal = np.clip(0.5 + 0.2 * (y - 0.5) + 0.2 * random.normal(size=1_000), 0, 1)
    assert "do not carry enough signal" in reason(y, noise)
    assert "although a linear model does" in reason(y, noise, linear=signal)
    assert "worse than a constant" in reason(y, 1 - signal)
    assert "less than min_skill" in reason(y, signal, min_skill=0.9)
    few = np.array([0.1, 0.2, 0.45, 0.8, 0.3, 0.4, 0.6, 0.35, 0.5, 0.55])
    assert "10 rows is too small" in reason(np.arange(10) % 2, few)
    # Refused for something else: nothing is said of signal.
    assert reason(y, signal, thresholds={"roc_auc": 0.99}) == ""


def comparisons(module: Module) -> list[Any]:
    """Return what a comparison can come to, with all that it is judged by."""
    records = module("records")
    interval = records.Interval(value=0.0, low=-0.1, high=0.1)
    recipes = records.Recipes(skill=interval, rows=9)
    champion = records.Champion.model_construct(version="1")
    part = records.ComparedSlice(column="place", value="a", rows=9, skill=interval)
    result: list[Any] = [None, records.NotCompared(kind="first", champion=None)]
    result.append(
        records.Incomparable.model_construct(champion=champion, tolerance=0.05, replaces=None)
    )
    for own, others in product([None, recipes], repeat=2):
        best = records.BestComparison(champion=champion, skill=interval, recipes=others, unseen=9)
        result.append(
            records.Compared.model_construct(
                champion=champion,
                tolerance=0.05,
                skill=interval,
                recipes=own,
                slices=[part],
                best=best,
            )
        )
    return result


def test_no_two_checks_of_a_decision_have_the_same_id(module: Module) -> None:
    records = module("records")
    interval = records.Interval(value=0.0, low=-0.1, high=0.1)
    y = np.arange(200) % 2
    document = judged(module, y, np.where(y == 1, 0.9, 0.1))
    rates = ("error_rate", "selection_rate", "true_positive_rate")
    limits = dict.fromkeys(rates, 0.1)
    compared = [
        records.GroupComparison(
            columns=columns,
            rate=rate,
            groups=[],
            difference=interval,
            ratio=interval,
            highest="a",
            lowest="b",
        )
        for columns in (["a"], ["a", "b"], ["a and b"], ["b and a"], ["b", "a"])
        for rate in rates
    ]
    document = document.model_copy(
        update={
            "fairness": compared,
            "leaks": records.Leaks(rows=0, groups=0, future=0, encodings=0),
            "metrics": dict.fromkeys(("roc_auc", "log_loss", "f1"), interval),
        }
    )
    gate = module("config").Gate.model_construct(
        thresholds={"roc_auc": 0.5, "log_loss": 0.5, "f1": 0.5},
        fairness=SimpleNamespace(compare="pessimistic", limits=lambda *_: limits),
    )
    for comparison in comparisons(module):
        checks = module("pipeline.gate").decide(document, gate, comparison)
        ids = [check.id for check in checks]
        assert all(ids)
        assert [name for name, count in Counter(ids).items() if count > 1] == []
    # With both recipes, all four are there.
    rivals = {"champion", "champion recipe", "best champion", "best champion recipe"}
    assert rivals | {"champion slice"} == {name for name in ids if "champion" in name}


def test_what_is_not_defined_is_refused_with_words(module: Module) -> None:
    name = "skill over linear, upper end"
    check = module("pipeline.gate").judge_value("linear", name, None, "≥", -0.05)
    assert check.verdict == "refused"
    assert (
        module("pipeline.gate_text")
        .sentence(check)
        .endswith("not defined on this holdout, and must be ≥ -0.05")
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (23_519.6, "23,520"),
        (1_234_567.0, "1,234,567"),
        (-2_352.4, "-2,352"),
        (0.00012, "0.00012"),
        (0.71333333, "0.7133"),
        (0.1, "0.1"),
        (100.0, "100"),
        (999.96, "1,000"),
        (0, "0"),
        (3e-9, "3e-09"),
        (1e300, "1e+300"),
        (None, "unknown"),
    ],
)
def test_numbers_are_written_as_people_write_them(
    module: Module, number: float | None, text: str
) -> None:
    assert module("pipeline.formatting").short(number) == text


# --- a decision and its costs ------------------------------------------------------------------


def decided(module: Module, y: Any, p: Any, *, false_positive: float, false_negative: float) -> Any:
    costs = module("config").Costs(false_positive=false_positive, false_negative=false_negative)
    gate = module("config").Gate.model_validate(GATE)
    return module("pipeline.decision").decision(y, p, y, p, costs, gate)


@pytest.mark.parametrize("false_negative", [1 / 9, 1.0, 3.0, 9.0])
def test_of_exact_probabilities_the_threshold_is_the_ratio_of_the_costs(
    module: Module, false_negative: float
) -> None:
    seed = 20261126
    print("seed", seed)
    random = np.random.default_rng(seed)
    p = random.random(200_000)
    y = (random.random(200_000) < p).astype(int)
    decision = decided(module, y, p, false_positive=1.0, false_negative=false_negative)
    assert decision.threshold == pytest.approx(1 / (1 + false_negative), abs=0.03)
    assert decision.worth.low > 0
    assert decision.cost.model < min(decision.cost.never, decision.cost.always)


@settings(deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(1, 30))
def test_no_other_threshold_is_cheaper(module: Module, seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, rows)
    p = random.integers(0, 6, rows) / 5
    false_positive, false_negative = random.integers(1, 9, 2) / 2
    costs = module("config").Costs(
        false_positive=float(false_positive), false_negative=float(false_negative)
    )

    def cost(threshold: float) -> float:
        acts = p >= threshold
        return float(
            (acts & (y == 0)).sum() * false_positive + (~acts & (y == 1)).sum() * false_negative
        )

    chosen = module("pipeline.decision").cheapest(y, p, costs)
    assert 0 <= chosen <= np.nextafter(1, 2)
    assert cost(chosen) == pytest.approx(min(cost(t) for t in np.linspace(-0.01, 1.01, 103)))


def test_a_worthless_model_is_worth_nothing(module: Module) -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 4_000)
    p = random.random(4_000)
    train = slice(0, 2_000)
    held = slice(2_000, None)
    costs = module("config").Costs(false_positive=1.0, false_negative=5.0)
    gate = module("config").Gate.model_validate(GATE)
    decision = module("pipeline.decision").decision(
        y[train], p[train], y[held], p[held], costs, gate
    )
    assert decision.against == "always"
    assert decision.worth.value < 0.02
    assert sum(dict(decision.counts).values()) == 2_000


# --- a run that fails ---------------------------------------------------------------------------


def test_a_run_ends_with_the_failure_of_its_step_and_not_with_dvcs(module: Module) -> None:
    failure = module("adapters.pipeline_dvc")._failure
    package = module("exceptions")
    ended = "failed to reproduce 'gate': failed to run: ml gate, exited with {}"
    error = failure(ended.format(1), "the gate refused this model:\n  rmse: 2 is not ≤ 1")
    assert type(error) is package.RefusedError
    assert str(error).endswith("rmse: 2 is not ≤ 1")
    assert type(failure(ended.format(2), "rows.csv is missing")) is package.UsageError
    assert failure(ended.format(70), "").code == 70
    assert failure(ended.format(-9), "").code == -9
    error = failure("unable to lock dvc.lock", "")
    assert type(error) is package.UsageError
    assert str(error) == "DVC cannot run the pipeline: unable to lock dvc.lock"


STAGES = """
stages:
  first:
    cmd: sh step "first is done" && echo 1 > a
    outs: [a]
  second:
    cmd: sh step "second is done" && %s
    deps: [a]
"""


@pytest.fixture
def pipeline(module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what runs a pipeline of two steps, of which the second ends as it is told to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "runtime/src"))
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    Path("step").write_text('echo "$1"\necho "ERROR: $1, with a warning" >&2\n')

    def run(end: str, on_stage: Callable[[str], None] = lambda _: None) -> None:
        Path("dvc.yaml").write_text(STAGES % end)
        module("adapters.pipeline_dvc").run({}, on_stage)

    return run


@pytest.mark.slow  # DVC runs
def test_a_run_announces_the_stages_that_are_stale_and_no_others(pipeline: Any) -> None:
    stages: list[str] = []
    for _ in range(2):
        pipeline("true", stages.append)
    assert stages == ["first", "second"]
    pipeline("echo 2 > b", stages.append)
    assert stages == ["first", "second", "second"]


@pytest.mark.slow  # DVC runs
def test_a_run_says_each_step_once_and_nothing_of_dvcs_own(
    pipeline: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline("true")
    out, err = capfd.readouterr()
    assert out == "first is done\nsecond is done\n"
    assert err == "ERROR: first is done, with a warning\nERROR: second is done, with a warning\n"
    pipeline("true")
    assert capfd.readouterr().out.count("first") == 1  # that it is unchanged


@pytest.mark.slow  # DVC runs
def test_a_step_that_fails_is_the_only_one_to_say_so(
    module: Module, pipeline: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("refuse").write_text("echo ml: the gate refused this model >&2; exit 1")
    with pytest.raises(module("exceptions").RefusedError) as refusal:
        pipeline("sh refuse")
    assert str(refusal.value) == "the gate refused this model"
    out, err = capfd.readouterr()
    assert out == "first is done\nsecond is done\n"
    assert err == "ERROR: first is done, with a warning\nERROR: second is done, with a warning\n"
    Path("dvc.yaml").write_text("stages: [")
    with pytest.raises(
        module("exceptions").UsageError,
        match=r"cannot run the pipeline: unable to read: .dvc\.yaml",
    ):
        module("adapters.pipeline_dvc").run({}, lambda _: None)
    assert capfd.readouterr() == ("", "")


def test_a_conflict_in_dvcs_lock_is_told_as_that(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text("stages:\n<<<<<<< HEAD\n  a: 1\n=======\n>>>>>>> b\n")
    with pytest.raises(module("exceptions").UsageError, match=r"dvc\.lock has a merge conflict"):
        module("adapters.pipeline_dvc").run({}, lambda _: None)


@pytest.mark.parametrize(
    ("content", "kept"), [(b"", False), (b'{"write": {"a', False), (b'{"read": {}}', True)]
)
def test_a_file_that_a_killed_dvc_left_half_written_does_not_stop_the_next_run(
    module: Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    kept: bool,
) -> None:
    from dvc.repo import Repo  # type: ignore[import-untyped]

    monkeypatch.chdir(tmp_path)
    # They write to what was standard output when DVC was imported, which a test may have captured.
    monkeypatch.setattr(logging.getLogger("dvc"), "handlers", [])
    Path("dvc.yaml").write_text("stages: {only: {cmd: echo 1 > a, outs: [a]}}")
    with Repo.init(no_scm=True) as repo:
        rwlock = tmp_path / ".dvc/tmp/rwlock"
        rwlock.parent.mkdir(exist_ok=True)
        rwlock.write_bytes(content)
        for _ in range(2):  # there is none, the second time
            module("adapters.pipeline_dvc.repro").drop_unreadable_rwlock(repo)
        assert rwlock.exists() == kept
        repo.reproduce()


RUN_DVC = "from rung_runtime.adapters.pipeline_dvc.repro import main; main()"
KILL_WHILE_IT_WRITES = """
import os, signal
from dvc.utils.serialize import _yaml

def dump(data, stream, dump=_yaml._dump):
    if WRITTEN not in os.path.basename(stream.name):
        return dump(data, stream)
    stream.write("sche")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)

_yaml._dump = dump
"""


@pytest.mark.slow  # DVC runs
@pytest.mark.parametrize("written", ["dvc.lock", "rows.csv.dvc"])
def test_dvc_killed_while_it_writes_a_file_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    def run(code: str) -> int:
        return subprocess.run([sys.executable, "-c", code]).returncode

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "runtime/src"))
    stage = "{cmd: cp rows.csv a, deps: [rows.csv], outs: [a]}"
    Path("dvc.yaml").write_text(f"stages: {{only: {stage}}}")
    Path("rows.csv").write_text("1")
    for command in (["init", "-q", "--no-scm"], ["add", "-q", "rows.csv"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True)
    if written == "dvc.lock":
        Path("rows.csv.dvc").unlink()
    before = Path(written).read_text()
    Path("rows.csv").write_text("2")
    assert run(f"WRITTEN = {written!r}{KILL_WHILE_IT_WRITES}{RUN_DVC}") == -signal.SIGKILL
    assert Path(written).read_text() == before
    assert run(RUN_DVC) == 0
    assert Path(written).read_text() != before
    assert not list(tmp_path.glob(".*.new"))


@pytest.mark.parametrize(
    ("content", "left"),
    [("", None), ("\0" * 4096, None), ("sche", "malformed"), ("stages: {}\n", "malformed")],
)
def test_a_lock_that_dvc_left_half_written_is_removed_if_it_is_empty_or_told(
    module: Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    left: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_text(content)
    check_lock = module("adapters.pipeline_dvc.stages").check_lock
    if left is None:
        check_lock()
        assert not Path("dvc.lock").exists()
        return
    with pytest.raises(module("exceptions").UsageError, match=rf"dvc\.lock is {left}: delete it"):
        check_lock()
    assert Path("dvc.lock").read_text() == content


@pytest.mark.parametrize(("check", "kept"), [("latency", False), ("size", True)])
def test_a_refusal_for_latency_is_measured_again_by_the_next_run(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str, kept: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    loop = module("cli.pipeline")
    documents = module("artifacts")
    path = documents.DOCUMENTS["evaluate"]
    path.parent.mkdir()
    path.write_text("{}")
    records = module("records")
    checks = [
        records.Check.model_construct(id=check, verdict="refused"),
        records.Check.model_construct(verdict="passed"),
    ]
    gate = records.GateDocument.model_construct(checks=checks)
    monkeypatch.setattr(documents, "read", {records.GateDocument: gate}.__getitem__)
    loop._measure_again()
    assert path.exists() == kept
