"""`ml tune` finds better params if there are any, and does not take luck for them."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import libraries
import numpy as np
import polars as pl
import pytest
from conftest import Copy, Project, git, run
from test_engines import LIBRARIES

Module = Callable[[str], ModuleType]
COLUMNS = 6
MODEL = """\
# Ours.
estimator: linear # as it explains itself
params: {alpha: 5000.0} # by hand
"""
SPACE = "trials: 12\nspace:\n  alpha: {low: 0.01, high: 10000.0, log: true}\n"
DATA = """\
source: data/raw/rows.csv
target: y
task: regression
split: {by: stratified}
columns:
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Path) -> Path:
    """The current folder: a project of level 0, whose penalty is much too large."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.rung]\npackage = "model"\nlevel = 0\n')
    random = np.random.default_rng(3)
    x = random.normal(size=(300, COLUMNS))
    y = x @ np.arange(COLUMNS) + random.normal(size=300)
    names = [f"x{number}" for number in range(COLUMNS)]
    write_rows(tmp_path, pl.DataFrame(x, schema=names).with_columns(y=pl.Series(y)))
    columns = "".join(f"  {name}: {{type: number}}\n" for name in [*names, "y"])
    write(tmp_path, "data", DATA + columns)
    write(tmp_path, "model", MODEL)
    write(tmp_path, "gate", "metric: rmse\nthresholds: {rmse: 10.0}\n")
    write(tmp_path, "tune", SPACE)
    return tmp_path


def write(project: Path, name: str, text: str) -> None:
    (project / "config").mkdir(exist_ok=True)
    (project / f"config/{name}.yaml").write_text(text)


def write_rows(project: Path, rows: pl.DataFrame) -> None:
    (project / "data/raw").mkdir(parents=True, exist_ok=True)
    rows.write_csv(project / "data/raw/rows.csv")


def read_rows(project: Path) -> pl.DataFrame:
    return pl.read_csv(project / "data/raw/rows.csv")


Tune = Callable[..., str]


@pytest.fixture
def tune(module: Module, project: Path, capsys: pytest.CaptureFixture[str], reset: None) -> Tune:
    """Run the command in this process, and return what it prints."""

    def tune(apply: bool | None = None, **options: Any) -> str:
        options = {"trials": None, "minutes": None, "workers": 1} | options
        module("tuning.command").tune(**options, apply=apply)
        output, log = capsys.readouterr()
        return str(output + log)

    return tune


@pytest.fixture
def reset(module: Module, project: Path) -> None:
    """Have the project of the current folder read anew."""
    module("project")._read.cache_clear()


def studies(project: Path) -> list[Any]:
    """Return the studies of the journal, as Optuna reads it, the oldest first."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    storage = JournalStorage(JournalFileBackend(str(project / "artifacts/tune/journal.log")))
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def penalties(study: Any) -> list[float]:
    """Return what the trials tried that were neither interrupted nor failed."""
    return [
        trial.params["alpha"]
        for trial in study.trials
        if trial.state.name in ("COMPLETE", "PRUNED") and "present" not in trial.user_attrs
    ]


@pytest.mark.slow  # a search of many trainings
def test_better_params_are_written_as_a_change_to_commit_and_comments_stay(
    project: Path, tune: Tune
) -> None:
    output = tune()
    text = (project / "config/model.yaml").read_text()
    first, estimator, params = text.splitlines()
    assert (first, estimator) == ("# Ours.", "estimator: linear # as it explains itself")
    assert params.startswith("params: {alpha: ")
    assert params.endswith("} # by hand")
    assert "The gain is beyond noise" in output
    assert "-params: {alpha: 5000.0} # by hand" in output
    assert f"+{params}" in output
    assert "Next: ml run, then git add config/tune.yaml config/model.yaml && git commit" in output


@pytest.mark.slow  # a search of many trainings
def test_a_gain_within_noise_is_reported_as_such_and_replaces_nothing(
    project: Path, tune: Tune
) -> None:
    text = MODEL.replace("5000.0", "0.9")
    write(project, "model", text)
    output = tune()
    assert "The gain is within noise" in output or "Nothing better" in output
    assert (project / "config/model.yaml").read_text() == text
    assert "config/model.yaml stays as it is" in output


@pytest.mark.slow  # a search of many trainings
def test_a_gain_within_noise_is_written_if_a_person_insists_and_a_clear_one_not_if_told(
    project: Path, tune: Tune
) -> None:
    before = (project / "config/model.yaml").read_text()
    output = tune(apply=False)
    assert "The gain is beyond noise" in output
    assert (project / "config/model.yaml").read_text() == before
    write(project, "model", MODEL.replace("5000.0", "0.001"))
    output = tune(apply=True)
    assert "The gain is within noise" in output
    assert "alpha: 0.001" not in (project / "config/model.yaml").read_text()


@pytest.mark.slow  # a search of many trainings
def test_without_a_file_a_space_for_the_estimator_is_written_and_searched(
    project: Path, tune: Tune
) -> None:
    (project / "config/tune.yaml").unlink()
    output = tune(trials=2)
    assert "1 param of 'linear', written to config/tune.yaml" in output
    text = (project / "config/tune.yaml").read_text()
    assert text.startswith("# What `ml tune` searches")
    assert "  alpha: {low: 0.001, high: 1000.0, log: true}\n" in text
    assert "1 param of 'linear', from config/tune.yaml" in tune(trials=3)


@pytest.mark.slow  # a search of many trainings
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("estimator: boosted", {"learning_rate", "max_leaf_nodes", "l2_regularization"}),
        ("estimator: forest", {"max_features", "min_samples_leaf"}),
        ("estimator: linear", {"alpha"}),
        (
            "estimator: mean\nparams: {boosted: {max_iter: 50}, linear: {}}",
            {"boosted.learning_rate", "linear.alpha"},
        ),
    ],
)
def test_the_space_that_is_written_can_be_searched(
    project: Path, tune: Tune, module: Module, model: str, expected: set[str]
) -> None:
    write(project, "model", model)
    (project / "config/tune.yaml").unlink()
    output = tune(trials=1)
    assert "failed" not in output
    (study,) = studies(project)
    assert expected <= set(study.trials[0].params)


def test_a_whole_number_among_the_choices_is_the_present_one(project: Path, tune: Tune) -> None:
    write(project, "model", "estimator: linear\nparams: {alpha: 1}\n")
    write(project, "tune", "trials: 2\nspace: {alpha: [0.1, 1.0, 10.0]}\n")
    assert "failed" not in tune(trials=2)


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_an_estimator_of_a_library_gets_the_space_of_its_class(
    module: Module, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    spaces = module("tuning.space")
    kind = {"lightgbm": "LGBMClassifier", "xgboost": "XGBClassifier"}[library]
    made = getattr(pytest.importorskip(library), kind)()
    adapted = module("model_format").adapt(made)
    monkeypatch.setattr(spaces, "estimator", lambda *_: adapted)
    config = module("config")
    data = SimpleNamespace(task="binary", classes=[])
    space = spaces._default_space(config.Model(), data, pl.DataFrame())
    assert "learning_rate" in space
    assert set(space) <= set(made.get_params())


def test_a_param_that_lightgbm_would_ignore_is_told_before_the_search(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces = module("tuning.space")
    kind = pytest.importorskip("lightgbm").LGBMClassifier
    adapt = module("model_format").adapt
    monkeypatch.setattr(spaces, "estimator", lambda *args: adapt(kind(**args[-1])))
    model = module("config").Model(estimator="boosted", params={"num_leaves": 7})
    spaces.require_params(model, {("lambda_l2",): [1.0, 2.0]}, "binary", pl.DataFrame())
    with pytest.raises(
        module("exceptions").UsageError, match=r"does not take num_leafs .*no param"
    ):
        spaces.require_params(model, {("num_leafs",): [3, 4]}, "binary", pl.DataFrame())


def test_an_estimator_of_ones_own_is_searched_around_its_numbers(
    project: Path, module: Module
) -> None:
    spaces = module("tuning.space")
    around = spaces._around(8), spaces._around(0.5)
    assert around == ({"low": 2, "high": 32, "log": True}, {"low": 0.125, "high": 2.0, "log": True})


def test_no_row_of_the_holdout_is_searched_or_judged_with(project: Path, module: Module) -> None:
    settings = module("config").load()
    train = module("tuning.command").training_rows(settings)
    module("pipeline.ingest").step(settings)
    module("pipeline.validate").step(settings)
    module("pipeline.split").step(settings)
    assert train.equals(pl.read_parquet("data/interim/train.parquet"))
    parts = module("tuning.judgement").divide(train, settings.data, 20_000)
    both = pl.concat(parts)
    assert both.height == train.height
    assert both.sort("x0").equals(train.sort("x0"))
    assert 0.25 < parts.kept_back.height / train.height < 0.35


@pytest.mark.parametrize("by", ["time", "group"])
def test_what_is_kept_back_is_newer_or_of_other_groups(
    project: Path, module: Module, by: str
) -> None:
    rows = read_rows(project)
    days = pl.date_range(pl.date(2020, 1, 1), pl.date(2022, 1, 1), eager=True)[: rows.height]
    shops = pl.Series([f"shop {number % 20}" for number in range(rows.height)])
    write_rows(project, rows.with_columns(time=days, group=shops))
    data = (project / "config/data.yaml").read_text()
    data = data.replace("{by: stratified}", f"{{by: {by}, column: {by}}}")
    columns = "  time: {type: datetime, formats: ['%Y-%m-%d']}\n  group: {type: text}\n"
    write(project, "data", data + columns)
    settings = module("config").load()
    train = module("tuning.command").training_rows(settings)
    parts = module("tuning.judgement").divide(train, settings.data, 20_000)
    if by == "time":
        assert parts.searched["time"].max() < parts.kept_back["time"].min()
    else:
        assert not set(parts.searched["group"]) & set(parts.kept_back["group"])


@pytest.mark.slow  # a search of many trainings
def test_a_search_that_was_interrupted_continues_and_comes_out_as_one_that_was_not(
    project: Path, tune: Tune, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune(apply=False)
    whole = penalties(*studies(project))
    (project / "artifacts/tune/journal.log").unlink()
    folds = module("tuning.folds").Folds
    predict = folds.predict
    calls = 0

    def press_ctrl_c(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 25:
            raise KeyboardInterrupt
        return predict(self, *arguments)

    monkeypatch.setattr(folds, "predict", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt, match=r"stopped, \d trials kept: `ml tune` continues"):
        tune(apply=False)
    half = penalties(*studies(project))
    assert half == whole[: len(half)] != []
    output = tune(apply=False)
    assert re.search(r"12 trials, \d of them from earlier runs", output)
    assert penalties(*studies(project)) == whole


@pytest.mark.slow  # a search of many trainings
def test_the_trials_of_the_budget_are_those_of_the_whole_search(project: Path, tune: Tune) -> None:
    tune(trials=3, apply=False)
    assert "3 trials, 3 of them from earlier runs" in tune(trials=3, apply=False)
    tune(trials=5, apply=False)
    (study,) = studies(project)
    assert len(penalties(study)) == 5


@pytest.mark.slow  # a search of many trainings
def test_trials_of_other_rows_or_of_another_space_are_not_mixed_in(
    project: Path, tune: Tune
) -> None:
    tune(trials=2, apply=False)
    rows = read_rows(project)
    write_rows(project, rows.with_columns(y=rows["y"].reverse()))
    assert "earlier" not in tune(trials=2, apply=False)
    write_rows(project, rows)
    write(project, "tune", SPACE.replace("0.01", "0.02"))
    assert "earlier" not in tune(trials=2, apply=False)
    write(project, "tune", SPACE)
    assert "2 of them from earlier runs" in tune(trials=2, apply=False)
    assert len(studies(project)) == 3


@pytest.mark.slow  # a search of many trainings
def test_a_search_continues_after_its_best_params_were_taken_over(
    project: Path, tune: Tune
) -> None:
    tune()
    output = tune(trials=14)
    assert "12 of them from earlier runs" in output
    assert len(studies(project)) == 1


@pytest.mark.slow  # a search of many trainings
def test_a_judgement_is_not_repeated_and_each_further_one_asks_for_more(
    project: Path, tune: Tune, module: Module
) -> None:
    first = tune(trials=2, apply=False)
    skill = re.search(r"skill over the present params (.*)", first)
    assert skill
    assert skill[0] in tune(trials=2, apply=False)
    (study,) = studies(project)
    assert len(study.user_attrs["looks"]) == 1
    confidence = module("tuning.judgement").confidence
    wrong = [(1 - confidence(looks)) / 2 for looks in range(10_000)]
    assert confidence(0) == 0.95
    assert wrong == sorted(wrong, reverse=True)
    assert sum(wrong) < 0.05


@pytest.mark.slow  # a search of many trainings
def test_trials_that_fail_are_reported_with_the_reason_and_the_others_continue(
    project: Path, tune: Tune
) -> None:
    write(project, "tune", "trials: 12\nspace:\n  alpha: [0.1, 1.0, 10.0, much]\n")
    output = tune(apply=False)
    assert re.search(r"WARNING: \d trials? failed: .*'alpha'.*'much'", output)
    assert "The gain is beyond noise" in output


def test_a_space_of_which_nothing_works_is_one_sentence(
    project: Path, tune: Tune, module: Module
) -> None:
    write(project, "tune", "space:\n  alpha: {low: -2.0, high: -1.0}\n")
    with pytest.raises(module("exceptions").UsageError) as refusal:
        tune()
    message = str(refusal.value)
    assert message.startswith("config/tune.yaml: the first 5 trials failed, the last: ")
    assert "'alpha'" in message


def test_present_params_that_do_not_work_are_one_sentence(
    project: Path, tune: Tune, module: Module
) -> None:
    write(project, "model", "estimator: linear\nparams: {alpha: -1.0}\n")
    with pytest.raises(module("exceptions").UsageError) as refusal:
        tune()
    assert str(refusal.value).startswith("config/model.yaml: the present params cannot be tried: ")


def test_rows_that_break_the_contract_are_refused_before_the_search(
    project: Path, tune: Tune, module: Module
) -> None:
    data = (project / "config/data.yaml").read_text()
    write(project, "data", data.replace("x0: {type: number}", "x0: {type: number, max: 1.0}"))
    with pytest.raises(module("exceptions").RefusedError, match="x0: above 1"):
        tune()


@pytest.mark.slow  # a search of many trainings
def test_what_cannot_keep_up_is_given_up_after_some_folds(project: Path, tune: Tune) -> None:
    write(project, "tune", "space:\n  alpha: [0.1, 0.2, 0.3, 0.4, 0.5, 1.0e+6]\n")
    output = tune(trials=30, apply=False)
    (study,) = studies(project)
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    assert pruned
    assert f"{len(pruned)} given up early" in output
    assert len(pruned[0].intermediate_values) < 5


def test_the_minutes_of_a_run_are_its_own(project: Path, tune: Tune) -> None:
    output = tune(minutes=0.00001, apply=False)
    assert "0 of 12 trials were tried: `ml tune` continues." in output


def test_without_optuna_a_sentence_says_what_to_install(
    tune: Tune, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(module("exceptions").UsageError) as refusal:
        tune()
    assert "`uv add --group train 'optuna>=5.0' 'filelock>=4.2'`" in str(refusal.value)


def test_two_searches_of_a_project_take_turns(project: Path, tune: Tune, module: Module) -> None:
    with (
        module("tuning.study").open_storage(),
        pytest.raises(module("exceptions").UsageError, match="another `ml tune` is at work"),
    ):
        tune()


@pytest.mark.slow  # a search of many trainings
def test_a_search_that_was_killed_while_it_wrote_continues(project: Path, tune: Tune) -> None:
    tune(trials=2, apply=False)
    with (project / "artifacts/tune/journal.log").open("a") as journal:
        journal.write('{"op_code":4,"study_')
    assert "2 of them from earlier runs" in tune(trials=3, apply=False)
    tune(trials=4, apply=False)


@pytest.mark.slow  # a search of many trainings
def test_a_trial_during_which_the_search_was_killed_is_not_tried_for_ever(
    project: Path, tune: Tune, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = module("tuning.study").Study
    with monkeypatch.context() as patch:
        patch.setattr(study, "fail", lambda *_: None)  # it had no time for that
        patch.setattr(study, "should_prune", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tune(apply=False)
    output = tune(apply=False)
    assert "WARNING: 1 trial failed: `ml tune` was killed while it was tried" in output


OWN = """\
import os
from collections.abc import Mapping
from typing import Any

import polars as pl
from sklearn.base import BaseEstimator

from model.problem.model import TRUSTED, linear, numeric
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

__all__ = ["TRUSTED", "linear"]


class Unsteady(Ridge):
    def fit(self, X: Any, y: Any) -> Any:
        if self.alpha == 13.0:
            os.abort()
        return super().fit(X, y)


def estimator(
    name: str, task: str, inputs: pl.DataFrame, seed: int, params: Mapping[str, Any]
) -> BaseEstimator:
    return make_pipeline(numeric(inputs), Unsteady(**params))
"""


@pytest.fixture
def own(project: Path, problem: Path, monkeypatch: pytest.MonkeyPatch, reset: None) -> Path:
    """Let the project have an estimator of its own, which a library of its own ends."""
    folder = project / "src/own/problem"
    shutil.copytree(problem, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "model.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(project / "src"))
    (project / "pyproject.toml").write_text('[tool.rung]\npackage = "own"\nlevel = 0\n')
    write(project, "model", "estimator: unsteady\nparams: {alpha: 5000.0}\n")
    return project


@pytest.mark.slow  # a search of many trainings
def test_trials_run_beside_each_other_and_a_library_that_aborts_costs_one_trial(
    own: Path, tune: Tune
) -> None:
    write(own, "tune", "space:\n  alpha: [0.1, 1.0, 13.0]\n")
    output = tune(trials=8, workers=2)
    assert re.search(
        r"WARNING: \d trials? failed: the library ended its process by SIGABRT", output
    )
    assert "The gain is beyond noise" in output
    assert "8 trials" in output


def test_an_estimator_of_ones_own_gets_a_space_by_its_class(own: Path, tune: Tune) -> None:
    (own / "config/tune.yaml").unlink()
    tune(trials=1)
    assert "  alpha: {low: 0.001" in (own / "config/tune.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("space:\n", "this must be params, each with a range"),
        ("space: {}\n", "at least 1 item"),
        ("space: {alpha: 1.0}\n", "alpha: give {low: …, high: …} or a list of values"),
        ("space: {alpha: []}\n", "alpha: give {low: …, high: …} or a list of values"),
        ("space: {mean: {alpha: 1}}\n", "mean.alpha: give {low: …, high: …}"),
        ("space: {alpha: {low: 2, high: 1}}\n", "alpha: low: 2 is not below high: 1"),
        ("space: {alpha: {low: 1}}\n", "alpha.high: this key is missing"),
        ("space: {alpha: {low: 1e-4, high: 1.0}}\n", "low: 1e-4 is a text in YAML: write 1.0e-04"),
        ("space: {alpha: {low: '1', high: 2}}\n", "alpha.low: this must be a number"),
        ("space: {alpha: {low: 0, high: 2, log: true}}\n", "log: true needs a low above 0"),
        ("space: {alpha: {low: 1, high: 9, log: true, step: 2}}\n", "cannot be combined"),
        ("space: {alpha: {low: 1, high: 2, lgo: true}}\n", "alpha.lgo: there is no such key"),
        ("trials: 0\nspace: {alpha: [1]}\n", "trials: "),
        ("space: {alpha: [.nan, 1]}\n", "alpha: nan cannot be tried: give numbers, texts, true"),
        ("space: {alpha: [[1, .inf]]}\n", "alpha: [1, inf] cannot be tried"),
        ("space: {alpha: [2026-01-01]}\n", "alpha: 2026-01-01 cannot be tried"),
        ("space: {alpha: [5, 5]}\n", "alpha: 5 is in its list twice"),
        ("space: {alpha: {low: .nan, high: 1}}\n", "alpha.low: this must be a finite number"),
        ("space: {n: {low: 1, high: 10, step: 20}}\n", "n: step: 20 is larger than the distance"),
        ("space: {n: {low: 0.1, high: 0.5, step: 1.0}}\n", "so that only 0.1 would be tried"),
    ],
)
def test_a_mistake_in_the_space_is_one_sentence(
    project: Path, tune: Tune, module: Module, text: str, expected: str
) -> None:
    write(project, "tune", text)
    with pytest.raises(module("exceptions").UsageError) as refusal:
        module("config").read(module("config.tune").TUNE, module("config.tune").Tune)
    message = str(refusal.value)
    assert message.startswith("config/tune.yaml: ")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "space", ["{penalty: {low: 1, high: 2}}", "{alpha: [1.0], depth: [3, 4]}", "{ridge: {a: [1]}}"]
)
def test_a_space_of_another_estimator_is_told_before_the_search(
    project: Path, tune: Tune, module: Module, space: str
) -> None:
    write(project, "tune", f"space: {space}\n")
    with pytest.raises(module("exceptions").UsageError) as refusal:
        tune()
    message = str(refusal.value)
    assert message.startswith("config/tune.yaml: space: the estimator ")
    assert "or delete config/tune.yaml, and `ml tune` writes one" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("entry", "last"),
    [({"low": 1, "high": 10, "step": 4}, 9), ({"low": 0.0, "high": 1.0, "step": 0.3}, 0.9)],
)
def test_a_grid_that_misses_its_end_is_searched_up_to_there(
    module: Module, entry: dict[str, Any], last: float, recwarn: pytest.WarningsRecorder
) -> None:
    ranges = {("n",): module("config.tune").Range(**entry)}
    (distribution,) = module("tuning.space").distributions(ranges).values()
    assert distribution.high == pytest.approx(last)
    assert not recwarn.list


def test_a_param_that_is_below_one_that_is_a_number_is_one_sentence(
    project: Path, tune: Tune, module: Module
) -> None:
    write(project, "tune", "space: {alpha: {beta: [1, 2]}}\n")
    with pytest.raises(module("exceptions").UsageError, match="would replace alpha"):
        tune()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("params: {a: 1, b: 2} # why\n", "params: {a: 1, b: 9, c: [x, y]} # why\n"),
        (
            "params:\n  # slow\n  b: 2 # two\n  a: 1\n\n# seed\nseed: 0\n",
            "params:\n  # slow\n  b: 9 # two\n  a: 1\n  c: [x, y]\n\n# seed\nseed: 0\n",
        ),
        ("estimator: linear\n", "estimator: linear\nparams: {b: 9, c: [x, y]}\n"),
        ("estimator: linear", "estimator: linear\nparams: {b: 9, c: [x, y]}"),
        ("params: {}\nseed: 1\n", "params: {b: 9, c: [x, y]}\nseed: 1\n"),
        ("params:\nseed: 1\n", "params: {b: 9, c: [x, y]}\nseed: 1\n"),
        ("params: null # none\n", "params: {b: 9, c: [x, y]} # none\n"),
        ("# only this\n", "# only this\nparams: {b: 9, c: [x, y]}\n"),
        ("", "params: {b: 9, c: [x, y]}\n"),
        ("{params: {a: 1,}}\n", "{params: {a: 1, b: 9, c: [x, y]}}\n"),
        ("params:\n  c:\n  - 1\n  - 2\n  b: 0\n", "params:\n  c: [x, y]\n  b: 9\n"),
        ("params:\n    b: |\n      two\n    c: 3\n", "params:\n    b: 9\n    c: [x, y]\n"),
        ('"params": {"b": 0}\n', '"params": {"b": 9, c: [x, y]}\n'),
    ],
)
def test_params_are_written_and_all_else_of_the_file_stays(
    module: Module, text: str, expected: str
) -> None:
    set_values = module("config.edit").set_values
    values = {("params", "b"): 9, ("params", "c"): ["x", "y"]}
    assert set_values(text, values, "model.yaml") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "params:\n  c:\n    - 1 # one\n    # then\n    - 2 # two\n  b: 9\n",
            "params:\n  c:\n    - x # one\n    # then\n    - y # two\n  b: 9\n",
        ),
        ("params:\n  c:\n  - 1 # one\n  b: 9\n", "params:\n  c:\n  - x # one\n  - y\n  b: 9\n"),
        (
            "params:\n  c: # sizes\n  - 1\n  - 2\n  - 3 # last\n  b: 9\n",
            "params:\n  # sizes\n  # last\n  c: [x, y]\n  b: 9\n",
        ),
        (
            "params:\n  c: [1, # one\n    '#2']\n  b: 9\n",
            "params:\n  # one\n  c: [x, y]\n  b: 9\n",
        ),
        (
            "params:\n  c:\n    d: 1 # inner\n  b: 9\n",
            "params:\n  # inner\n  c: [x, y]\n  b: 9\n",
        ),
        ("params: {c: [1, # one\n  2], b: 9}\n", "params: {c: [x, y], b: 9} # one\n"),
        (
            "params:\n  c: | # a text\n    # not a comment\n  b: 9\n",
            "params:\n  # a text\n  c: [x, y]\n  b: 9\n",
        ),
    ],
)
def test_comments_within_a_value_that_changes_stay(
    module: Module, text: str, expected: str
) -> None:
    values = {("params", "c"): ["x", "y"]}
    assert module("config.edit").set_values(text, values, "model.yaml") == expected


def test_what_cannot_be_edited_is_left_and_says_what_to_write(
    module: Module, project: Path
) -> None:
    set_values = module("config.edit").set_values
    text = "base: &base {b: 1}\nparams:\n  <<: *base\n"
    with pytest.raises(module("exceptions").UsageError, match=r"set params\.b\.x: 9 by hand"):
        set_values(text.replace("b: 1", "b: [1]"), {("params", "b", "x"): 9}, "model.yaml")


def test_a_file_from_windows_keeps_its_line_ends(project: Path, module: Module) -> None:
    (project / "config/model.yaml").write_bytes(MODEL.replace("\n", "\r\n").encode())
    module("tuning.command").write_params({("alpha",): 2.5, ("tol",): 1e-05})
    content = (project / "config/model.yaml").read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") == 3
    assert b"params: {alpha: 2.5, tol: 1.0e-05} # by hand" in content


@pytest.mark.slow  # MLflow's tables are made
def test_each_trial_is_recorded_once_below_its_search(
    project: Path,
    tune: Tune,
    module: Module,
    mlflow_tables: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(mlflow_tables, project / "mlflow.db")
    (project / "pyproject.toml").write_text('[tool.rung]\npackage = "model"\nlevel = 1\n')
    module("project")._read.cache_clear()
    write(project, "tune", "space:\n  alpha: [0.1, 1.0, much]\n")
    assert "tracking: 6 trials recorded below " in tune(trials=6, apply=False)
    assert "tracking: " not in tune(trials=6, apply=False)
    assert "tracking: 2 trials recorded below " in tune(trials=8, apply=False)
    client = module("adapters.tracker_mlflow").client()
    experiment = client.get_experiment_by_name("model")
    runs = client.search_runs([experiment.experiment_id])
    parent = "mlflow.parentRunId"
    (search,) = [recorded for recorded in runs if parent not in recorded.data.tags]
    trials = [recorded for recorded in runs if recorded is not search]
    assert len(trials) == 8
    assert {trial.data.tags[parent] for trial in trials} == {search.info.run_id}
    failed = [trial for trial in trials if trial.info.status == "FAILED"]
    assert failed
    assert all(trial.data.params == {"alpha": "much"} for trial in failed)
    assert all("'much'" in trial.data.tags["error"] for trial in failed)
    complete = [trial for trial in trials if trial.data.tags["state"] == "complete"]
    assert all(0 < trial.data.metrics["rmse"] < 10 for trial in complete)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    output = tune(trials=9, apply=False)
    assert "tracking: the trials were not recorded: " in output
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "tracking: 1 trial recorded" in tune(trials=9, apply=False)


@pytest.mark.slow
def test_the_command_asks_for_optuna_and_then_finds_what_a_new_project_lacks(
    projects: Callable[[int], Project], tmp_path: Path
) -> None:
    made = projects(0)
    copy = Copy(made, made.copy(tmp_path / "project"))
    refusal = copy.ml("tune", exits=2)
    assert refusal.stdout == ""
    assert re.fullmatch("ml: `ml tune` needs (optuna|filelock), which .*\n", refusal.stderr)
    (copy.path / "config/model.yaml").write_text(
        "params: {max_iter: 30, learning_rate: 0.0001, max_leaf_nodes: 2}\n"
    )
    git(copy.path, "add", "--all")
    git(copy.path, "commit", "--quiet", "--message", "Start")
    libraries_folder = libraries.environment("optuna>=5.0", "filelock>=4.2")
    (packages,) = libraries_folder.glob("lib/*/site-packages")
    result = run(
        *("ml", "tune", "--trials", "6", "--workers", "2"),
        cwd=copy.path,
        home=tmp_path / "home",
        first=str(copy.project.path / ".venv/bin"),
        PYTHONPATH=f"{copy.path / 'src'}:{packages}",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    stages = ["rows", "space", "divide", "search", "judge"]
    assert re.findall(r"^✓ (\w+)", result.stderr, re.M) == stages
    assert "6 trials" in result.stderr
    assert "The gain is beyond noise" in result.stdout
    changes = git(copy.path, "status", "--porcelain").split("\n")
    assert sorted(line.split()[-1] for line in changes) == ["config/model.yaml", "config/tune.yaml"]
    copy.ml("ingest", exits=0)
    copy.ml("validate", exits=0)
    copy.ml("split", exits=0)
    copy.ml("train", exits=0)


@pytest.mark.slow  # a cluster starts
def test_a_cluster_finds_what_this_machine_finds(project: Path, tune: Tune, module: Module) -> None:
    (packages,) = libraries.environment(*LIBRARIES["dask"]).glob("lib/*/site-packages")
    sys.path.append(str(packages))
    (project / "pyproject.toml").write_text(
        '[tool.rung]\npackage = "model"\nlevel = 1\nengine = "dask"\n'
    )
    module("project")._read.cache_clear()
    tune(apply=False, trials=3)
    (here,) = studies(project)
    shutil.rmtree(project / "artifacts/tune")
    from distributed import LocalCluster

    size = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(local_directory=str(project / "dask"), **size) as cluster:
        tune(apply=False, trials=3, scheduler=cluster.scheduler_address)
    (there,) = studies(project)
    sys.path.remove(str(packages))
    assert penalties(here) == penalties(there)
    values = [[trial.value for trial in study.trials] for study in (here, there)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-9)


def test_a_scheduler_is_refused_below_level_1(project: Path, tune: Tune, module: Module) -> None:
    with pytest.raises(module("exceptions").UsageError, match="engines come with level 1"):
        tune(scheduler="tcp://127.0.0.1:1")
