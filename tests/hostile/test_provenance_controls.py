"""A request is judged by the gate of the branch it would change, whatever it makes of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from conftest import Copy, Render, git

Module = Callable[[str], ModuleType]


@pytest.fixture
def controls(
    module: Module, render: Render, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """Return the module, in a clone whose branch main has the template's own settings."""
    project = tmp_path / "project"
    shutil.copytree(render(level=2, ci=["github", "gitlab"]) / "config", project / "config")
    git(project, "init", "-q", "-b", "main")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "base")
    git(project, "checkout", "-qb", "request")
    monkeypatch.chdir(project)
    return module("controls")


def change(file: str, **keys: Any) -> dict[str, Any]:
    """Write other values of keys into a file of config/; None removes a key."""
    path = Path("config") / file
    settings: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    for name, value in keys.items():
        settings[name] = value
        if value is None:
            del settings[name]
    path.write_text(yaml.safe_dump(settings))
    return settings


def keys(controls: ModuleType, base: str = "main") -> dict[str, tuple[str, str]]:
    changes = controls.compared(base).changes
    return {change["key"]: (change["before"], change["after"]) for change in changes}


def test_settings_that_mean_the_same_are_no_change(controls: ModuleType) -> None:
    for file in ("gate.yaml", "delivery.yaml"):
        change(file)  # in another order, without comments
    change("gate.yaml", min_skill=0.0, resamples=200)  # the defaults
    change("delivery.yaml", service={"max_rows": 1_000})
    assert keys(controls) == {}
    change("gate.yaml", judge="worse_end")  # as 0.2 read it
    git(Path(), "commit", "-qam", "the worse end")
    change("gate.yaml", judge=None, compare="pessimistic")
    assert keys(controls, "HEAD") == {}
    assert controls.table([]) == ""


def test_where_no_setting_differs_ml_controls_says_so(
    controls: ModuleType, module: Module, capsys: pytest.CaptureFixture[str]
) -> None:
    module("cli.review").show_controls("main")
    assert capsys.readouterr() == ("", "no setting differs from main\n")


def test_each_change_is_shown_before_and_after(controls: ModuleType) -> None:
    before = yaml.safe_load(Path("config/gate.yaml").read_text())["thresholds"]
    metric, value = next(iter(before.items()))
    change(
        "gate.yaml", thresholds={metric: 0.01, "accuracy": 0.5}, compare="value", slice_rows=10**6
    )
    change("delivery.yaml", tolerance=99.0, accept_incomparable="20260101-000000-00000000")
    changes = keys(controls)
    assert changes[f"thresholds.{metric}"] == (str(value), "0.01")
    assert changes["thresholds.accuracy"] == (str(before.get("accuracy", controls.ABSENT)), "0.5")
    assert changes["slice_rows"] == ("100", "1000000")
    assert changes["tolerance"] == ("0.05", "99.0")
    assert changes["accept_incomparable"] == ("None", "20260101-000000-00000000")
    table = controls.table(controls.compared("main").changes)
    assert "`0.01` ⚠ asks for less" in table
    assert table.count("\n") == len(changes) + 1


@pytest.fixture
def performed(controls: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What judging does: the steps that are performed once more, and the verdict."""
    names: list[str] = []

    def perform(step: str, project: Path) -> tuple[int, str]:
        names.append(step)
        return 0, ""

    def record(comparison: Any, verdict: str, reasons: list[str]) -> None:
        names.append(verdict)

    monkeypatch.setattr(controls, "_performed", perform)
    monkeypatch.setattr(controls, "record", record)
    Path("artifacts").mkdir()
    return names


SERVICE = [
    ("port", 9000, "8080", "9000"),
    ("variables", ["AWS_SECRET_ACCESS_KEY"], "[]", "['AWS_SECRET_ACCESS_KEY']"),
    ("private", ["origin"], "[]", "['origin']"),
    ("hosts", ["predictions.example"], "[]", "['predictions.example']"),
    ("proxies", ["10.0.0.0/8"], "[]", "['10.0.0.0/8']"),
    ("user_header", "x-user", "", "x-user"),
    ("log", "s3://somebody/else", "predictions", "s3://somebody/else"),
]


@pytest.mark.parametrize(("key", "value", "before", "after"), SERVICE, ids=lambda value: str(value))
def test_each_change_of_the_service_is_one_line_and_judges_nothing_twice(
    controls: ModuleType, performed: list[str], key: str, value: Any, before: str, after: str
) -> None:
    service = yaml.safe_load(Path("config/delivery.yaml").read_text())["service"]
    change("delivery.yaml", service=service | {key: value})
    comparison = controls.compared("main")
    assert keys(controls) == {f"service.{key}": (before, after)}
    shown = " | ".join(
        f"`{text}`" if text else "(empty)" for text in (f"service.{key}", before, after)
    )
    assert shown in controls.table(comparison.changes)
    controls.judge(comparison)
    assert performed == ["passed"]
    # Taken away again, it is a change as well.
    git(Path(), "commit", "-qam", "the service")
    change("delivery.yaml", service=service)
    assert keys(controls, "request") == {f"service.{key}": (after, before)}
    # Beside one that decides on a model, the model is judged by the base.
    change("delivery.yaml", tolerance=0.5)
    controls.judge(controls.compared("request"))
    assert performed == ["passed", *controls.STEPS, "passed"]


def test_a_token_that_a_service_would_get_is_in_the_comment_and_can_be_taken_out(
    controls: ModuleType, module: Module, comments: list[tuple[str, str]]
) -> None:
    change("delivery.yaml", service={"variables": ["GITHUB_TOKEN"]})
    git(Path(), "commit", "-qam", "the token")
    with pytest.raises(controls.UsageError, match="GITHUB_TOKEN is a token of the pipeline's jobs"):
        module("config.delivery").load_delivery()
    git(Path(), "checkout", "-q", "main")
    module("cli.review").comment()
    ((_, tail),) = comments
    assert "| `service.variables` | `[]` | `['GITHUB_TOKEN']` |" in tail
    # A base that has it, from before it was refused, can be compared with.
    assert keys(controls, "request")["service.variables"] == ("['GITHUB_TOKEN']", "[]")


def test_a_threshold_that_is_gone_asks_for_less(controls: ModuleType) -> None:
    looser = controls.looser
    change_to_threshold = {"key": "thresholds.roc_auc", "before": "0.7", "after": "0.6"}
    assert looser(change_to_threshold)
    assert not looser(change_to_threshold | {"after": "0.8"})
    assert looser(change_to_threshold | {"after": controls.ABSENT})
    assert not looser(change_to_threshold | {"before": controls.ABSENT})
    assert looser(change_to_threshold | {"key": "thresholds.log_loss", "after": "0.8"})
    assert not looser(change_to_threshold | {"key": "confidence"})


def test_the_base_may_be_a_commit_and_nothing_else(controls: ModuleType) -> None:
    commit = git(Path(), "rev-parse", "main")
    assert controls.compared(commit).base == commit
    for wrong in ("", "nothing", "0" * 40, "--all", "--output=evil", "main:config", "main main"):
        with pytest.raises(controls.UsageError, match="not a commit"):
            controls.compared(wrong)
    assert not Path("evil").exists()


def test_a_job_of_the_base_sees_what_the_request_changes_without_its_files(
    controls: ModuleType,
) -> None:
    change("gate.yaml", slice_rows=10**6)
    git(Path(), "commit", "-qam", "looser")
    git(Path(), "checkout", "-q", "main")
    assert keys(controls) == {}
    (entry,) = controls.compared("main", "request").changes
    assert (entry["key"], entry["before"], entry["after"]) == ("slice_rows", "100", "1000000")
    with pytest.raises(controls.UsageError, match="not a commit"):
        controls.compared("main", "--all")


def test_a_base_without_the_files_is_judged_by_nothing_but_shown(controls: ModuleType) -> None:
    git(Path(), "checkout", "-q", "--orphan", "empty")
    git(Path(), "rm", "-q", "--cached", "-r", ".")
    git(Path(), "commit", "-q", "--allow-empty", "-m", "nothing")
    comparison = controls.compared("empty")
    assert comparison.texts == {}
    assert comparison.unfit == "it has none"
    assert {change["before"] for change in comparison.changes} == {controls.ABSENT}


def test_a_file_of_the_base_that_cannot_be_read_is_said(controls: ModuleType) -> None:
    for text in ("thresholds: [", "thresholds: {roc_auc: yes}\nmetric: roc_auc", "- 1", "null"):
        before = Path("config/gate.yaml").read_text()
        Path("config/gate.yaml").write_text(text)
        git(Path(), "commit", "-qam", "broken")
        broken = git(Path(), "rev-parse", "HEAD")
        Path("config/gate.yaml").write_text(before)
        with pytest.raises(controls.UsageError, match=r"config/gate\.yaml of"):
            controls.compared(broken)


@pytest.fixture
def comments(module: Module, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What `ml comment` writes in a job of the base: report and tail."""
    published: list[tuple[str, str]] = []
    there = SimpleNamespace(jobs=dict, comment=lambda text, tail: published.append((text, tail)))
    monkeypatch.setattr(module("ci_platform"), "require_platform", lambda: there)
    monkeypatch.setenv("ML_BASE", "main")
    monkeypatch.setenv("ML_HEAD", "request")
    return published


@pytest.mark.parametrize("text", ["[", "[" * 99_999, "{}", "null", '{"digest": NaN}', "\xff"])
def test_documents_of_a_request_that_make_no_report_do_not_silence_the_comment(
    controls: ModuleType, module: Module, comments: list[tuple[str, str]], text: str
) -> None:
    git(Path(), "checkout", "-q", "main")
    Path("artifacts").mkdir()
    Path("artifacts/gate.json").write_text(text)
    module("cli.review").comment()
    ((report, _),) = comments
    assert "❌ There is no report: ``UsageError: artifacts/gate.json cannot be read" in report


NO_SETTINGS = ["[" * 20_000, "a: 2026-13-45", f"a: {'9' * 5_000}", "thresholds: [", "a: !!python/x"]


@pytest.mark.parametrize("text", NO_SETTINGS, ids=lambda text: text[:12])
def test_settings_of_a_request_that_cannot_be_read_do_not_silence_the_comment(
    controls: ModuleType, module: Module, comments: list[tuple[str, str]], text: str
) -> None:
    Path("config/gate.yaml").write_text(text)
    git(Path(), "commit", "-qam", "no settings")
    git(Path(), "checkout", "-q", "main")
    module("cli.review").comment()
    ((_, tail),) = comments
    assert "❌ It cannot be read: `config/gate.yaml of" in tail


def test_another_task_is_judged_by_the_requests_own_gate_and_that_is_said(
    controls: ModuleType,
) -> None:
    """Its champion still counts: delivery.yaml, which names what may be replaced, is the base's."""
    text = Path("config/data.yaml").read_text()
    data = yaml.safe_load(text) | {"task": "regression", "classes": []}
    Path("config/data.yaml").write_text(yaml.safe_dump(data))
    change("gate.yaml", metric="rmse", thresholds={"rmse": 9e9})
    comparison = controls.compared("main")
    assert "not a metric of a regression task" in comparison.unfit
    folder = Path("copy")
    folder.mkdir()
    Path("artifacts").mkdir()
    controls._copied(folder, comparison)
    assert "rmse" in (folder / "config/gate.yaml").read_text()
    assert (folder / "config/delivery.yaml").read_text() == comparison.texts[controls.DELIVERY]


def test_the_copy_that_is_judged_has_the_bases_settings_and_writes_into_itself(
    controls: ModuleType,
) -> None:
    change("gate.yaml", min_skill=0.0, slice_rows=10**6)
    for name in ("src/a.py", "artifacts/metrics.json", "artifacts/champion/v/gate.json"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    comparison = controls.compared("main")
    folder = Path("artifacts/.base-1")
    folder.mkdir()
    controls._copied(folder, comparison)
    assert (folder / "config/gate.yaml").read_text() == comparison.texts[controls.GATE]
    assert (folder / "src/a.py").read_text() == "src/a.py"
    (folder / "artifacts/metrics.json").write_text("judged again")
    assert Path("artifacts/metrics.json").read_text() == "artifacts/metrics.json"
    assert (folder / "artifacts/champion/v/gate.json").exists()


@pytest.mark.slow
def test_a_request_that_lowers_its_own_gate_is_refused_by_the_bases(
    ran: Callable[[int, str], Copy], tmp_path: Path
) -> None:
    """Its own gate passes the model, that of the base does not: the run ends with exit code 1."""
    copy = ran(1, "multiclass").again(tmp_path / "copy")
    gate = copy.path / "config/gate.yaml"
    own = yaml.safe_load(gate.read_text())
    strict = own | {"thresholds": own["thresholds"] | {"log_loss": 0.0001}}
    gate.write_text(yaml.safe_dump(strict))
    git(copy.path, "add", "-A")
    git(copy.path, "commit", "-qm", "base")
    base = git(copy.path, "rev-parse", "HEAD")
    gate.write_text(yaml.safe_dump(own))
    done = copy.ml("run", "--base", base, exits=1)
    assert f"by the controls of {base[:8]}" in done.stderr
    assert copy.read("gate")["verdict"] == "passed"
    document = json.loads((copy.path / "artifacts/controls.json").read_text())
    assert document["verdict"] == "refused"
    assert [change["key"] for change in document["changes"]] == ["thresholds.log_loss"]
    judged = json.loads((copy.path / "artifacts/base/gate.json").read_text())
    assert judged["verdict"] == "refused"
    report = copy.ml("report", exits=0).stdout
    assert "The gate of the base branch refuses this model" in report
    after = float(own["thresholds"]["log_loss"])
    row = f"| `config/gate.yaml` | `thresholds.log_loss` | `0.0001` | `{after}` |"
    assert row in report
    assert f"`{after}` ⚠ asks for less" in copy.ml("controls", "--base", base, exits=0).stdout
    gate.write_text(yaml.safe_dump(strict))
    assert "thresholds" not in copy.ml("controls", "--base", base, exits=0).stdout
    gate.write_text(yaml.safe_dump(own))
    copy.ml("run", exits=0)
    assert not (copy.path / "artifacts/controls.json").exists()
