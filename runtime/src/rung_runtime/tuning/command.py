"""`ml tune`: search, judge what was best, and write it to `config/model.yaml` if it is better."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import unified_diff
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from .. import RefusedError, UsageError, config, progress, project
from ..atomic_file import atomic_write
from ..config import MODEL, Config
from ..config.edit import set_values
from ..config.tune import TUNE, Key, Tune
from ..pipeline import ingest, validate
from ..pipeline.formatting import ends, short
from ..pipeline.identity import identifying, identities
from ..pipeline.split import split
from ..problem import estimator, features
from ..records import Interval
from . import space as spaces
from .folds import Folds
from .judgement import Judgement, Parts, divide, judge
from .search import Budget, Measured, Progress, Result, Search
from .study import Study, open_storage, rows_digest
from .tracking import track
from .workers import Crew, core_count

if TYPE_CHECKING:
    from rich.console import Console

# Attributes of a study.
KEPT_BACK = "kept_back"  # the digest of the rows that judge
LOOKS = "looks"  # the judgements by them


def tune(
    trials: int | None,
    minutes: float | None,
    workers: int | None,
    *,
    apply: bool | None,
    scheduler: str | None = None,
) -> None:
    """Search, judge, explain, and write the best params if they are better.

    Args:
        trials: Of the whole search; by default as `config/tune.yaml` has it.
        minutes: Of this run; by default as the file has it.
        workers: How many trials run at once; by default one on each core.
        apply: True: write the best params even if their gain may be chance; False: write nothing.
        scheduler: Of a cluster that predicts folds; None: as `config/scale.yaml` has it.

    Raises:
        UsageError: A file of `config/` is wrong, or Optuna is missing, or nothing can be searched.
        RefusedError: The rows break the contract.
        KeyboardInterrupt: Ctrl-C, with a sentence on what is kept.
    """
    console = progress.open_console(sys.stdout)
    with ExitStack() as stack:
        stack.enter_context(progress.stages(quiet_until="search"))
        storage = stack.enter_context(open_storage())
        settings = config.load()
        progress.begin("rows")
        train = training_rows(settings)
        progress.report(f"{train.height:,} training rows from {settings.data.source}")
        progress.begin("space")
        plan = _plan(settings, train)
        progress.begin("divide")
        parts = divide(train, settings.data, plan.rows)
        folds = Folds.of_rows(parts.searched, settings)
        progress.report(
            f"{parts.searched.height:,} rows to search with, "
            f"{parts.kept_back.height:,} kept back to judge what is best"
        )
        study = Study(storage, folds, plan.space)
        study.store(KEPT_BACK, rows_digest(parts.kept_back))
        budget = Budget(
            plan.trials if trials is None else trials,
            plan.minutes if minutes is None else minutes,
        )
        start_crew = stack.enter_context(_cluster(scheduler))
        progress.begin("search")
        search = Search(study, budget, workers or core_count(), _show(folds.metric), start_crew)
        try:
            result = search.run()
        except KeyboardInterrupt:
            progress.report(f"stopped after {len(study.ended())} of {budget.trials} trials")
            track(study)
            raise KeyboardInterrupt(_stopped(study)) from None
        tracking = track(study)
        progress.report(_summary(study, result))
        judgement = None
        if result.best:
            progress.begin("judge")
            judgement = judge_once(study, parts, settings, result.best)
            progress.report(f"skill over the present params {_value(judgement.skill)}")
    if tracking:
        console.print(tracking)
    _print_result(console, study, result, judgement)
    _conclude(console, study, result, judgement, budget, apply)


@contextmanager
def _cluster(scheduler: str | None) -> Iterator[Callable[[Folds], Crew] | None]:
    """Yield what predicts folds on a cluster; None: no scheduler is named.

    A cluster of this machine would add nothing to its own processes.

    Raises:
        UsageError: It cannot be reached, or its engine has no trials.
    """
    if not project.current().has_loop:
        if scheduler:
            raise UsageError("--scheduler: engines come with level 1: run `rung up` first")
        yield None
        return
    scale, engines = (  # there from level 1 on
        import_module(name, __package__) for name in ("..config.scale", "..engines")
    )
    if not (scheduler or scale.load_scale().scheduler):
        yield None
        return
    with engines.open_engine(None, scheduler) as engine:
        start_crew = getattr(engine, "start_trials", None)
        if start_crew is None:
            raise UsageError(f"the engine {engine.name} does not tune: use dask, or no scheduler")
        yield start_crew


def training_rows(settings: Config) -> pl.DataFrame:
    """Return the typed rows that `ml train` would get, from the source as it is now.

    Raises:
        UsageError: The source cannot be read, or cannot be split.
        RefusedError: The rows break the contract.
    """
    data = settings.data
    raw = ingest.read(Path(data.source), data.separator)
    rows = ingest.typed(raw, data)
    if failures := validate.check(rows, data)["failures"]:
        lines = ["the rows break config/data.yaml:", *validate.describe(failures)]
        raise RefusedError("\n  ".join(lines))
    train, _ = split(rows, data, identities(raw, identifying(data)))
    return train


def _plan(settings: Config, train: pl.DataFrame) -> Tune:
    """Read `config/tune.yaml`; if there is none, write one for the estimator first."""
    is_new = not TUNE.exists()
    inputs = features(ingest.inputs(train.head(1), settings.data))
    if is_new:
        text = spaces.default_text(settings.model, settings.data, inputs)
        with atomic_write(TUNE) as new:
            new.write_text(text, "utf-8")
    plan = config.read(TUNE, Tune)
    for key in plan.space:
        _require_reachable(settings, key)
    if _can_be_made(settings, inputs):  # else the search says why not
        spaces.require_params(settings.model, plan.space, settings.data.task, inputs)
    params = f"{len(plan.space)} {_plural('param', len(plan.space))}"
    source = f"written to {TUNE}, which is yours to edit" if is_new else f"from {TUNE}"
    progress.report(f"{params} of '{settings.model.estimator}', {source}")
    return plan


def _can_be_made(settings: Config, inputs: pl.DataFrame) -> bool:
    """Check whether the estimator can be made with the present params."""
    model = settings.model
    try:
        estimator(model.estimator, settings.data.task, inputs, model.seed, model.params)
    except Exception:  # of problem/model.py or of a library
        return False
    return True


def _require_reachable(settings: Config, key: Key) -> None:
    """Check that a nested param is below params, not in the place of one."""
    for length in range(1, len(key)):
        value = spaces.value_of(settings.model, key[:length])
        if value is not None and not isinstance(value, dict):
            raise UsageError(
                f"{TUNE}: space: {spaces.name_of(key)} would replace {spaces.name_of(key[:length])}"
                f" of {MODEL}, which has no params of its own"
            )


def _show(metric: str) -> Callable[[Progress], None]:
    """Return what keeps the line of the search up to date."""

    def show(now: Progress) -> None:
        parts = [f"trial {now.trials} of {now.budget.trials}"]
        if now.best:
            parts.append(f"best {metric} {_value(now.best.interval)}")
        if now.present:
            parts.append(f"now {short(now.present.value)}")
        if now.seconds_left is not None:
            parts.append(_time_left(now.seconds_left))
        progress.report(" · ".join(parts))

    return show


def _time_left(seconds: float) -> str:
    if seconds >= 90:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds:.0f} s left"


def _value(interval: Interval) -> str:
    if interval.low is None:
        return short(interval.value)
    return f"{short(interval.value)} ({ends(interval)})"


def _stopped(study: Study) -> str:
    """Return what a person who pressed Ctrl-C has now, and how to continue."""
    ended = len(study.ended())
    best = study.best()
    if not ended or best is None:
        return "stopped: `ml tune` starts the search again"
    return (
        f"stopped, {ended} {_plural('trial', ended)} kept: `ml tune` continues, "
        f"`ml tune --trials {ended}` judges what is best so far"
    )


def _summary(study: Study, result: Result) -> str:
    counts = [f"{len(study.ended())} trials"]
    if study.earlier:
        counts.append(f"{study.earlier} of them from earlier runs")
    if pruned := len(study.pruned()):
        counts.append(f"{pruned} given up early")
    if failed := len(study.errors()):
        counts.append(f"{failed} failed")
    if result.best:
        counts.append(f"best {study.folds.metric} {_value(result.best.interval)}")
    return ", ".join(counts)


def judge_once(study: Study, parts: Parts, settings: Config, best: Measured) -> Judgement:
    """Judge the best params, unless these rows have judged them against the present ones before."""
    looks: list[dict[str, Any]] = study.attribute(LOOKS, [])
    question = {"present": settings.model.model_dump(), "best": best.model.model_dump()}
    for look in looks:
        if look["question"] == question:
            return Judgement(
                **look["judgement"] | {"skill": Interval(**look["judgement"]["skill"])}
            )
    digest = study.attribute(KEPT_BACK, "")
    earlier = sum(
        len(attributes.get(LOOKS, []))
        for attributes in study.all_attributes()
        if attributes.get(KEPT_BACK) == digest
    )
    judgement = judge(parts, settings, best.model, earlier)
    answer = judgement._asdict() | {"skill": judgement.skill.model_dump()}
    study.store(LOOKS, [*looks, {"question": question, "judgement": answer}])
    return judgement


def _print_result(
    console: "Console", study: Study, result: Result, judgement: Judgement | None
) -> None:
    """Print the present params beside the best ones, and what each reaches."""
    from rich.markup import escape
    from rich.table import Table

    best = result.best
    table = Table(box=None, pad_edge=False)
    for title in ("", "now", *(["best"] if best else [])):
        table.add_column(title, overflow="fold")
    for key in study.space:
        present = _param(spaces.value_of(result.present.model, key))
        table.add_row(*map(escape, (spaces.name_of(key), present, *_cells(best, key))))
    metric = study.folds.metric
    rows = [f"{metric}, cross-validated", _value(result.present.interval)]
    table.add_row(*rows, *([_value(best.interval)] if best else []))
    if judgement:
        table.add_row(
            f"{metric}, {judgement.rows:,} rows kept back",
            short(judgement.present),
            short(judgement.best),
        )
    console.print()
    console.print(table)
    console.print()
    for text in _errors(study):
        console.print(text, markup=False)


def _cells(best: Measured | None, key: Key) -> list[str]:
    return [_param(spaces.value_of(best.model, key))] if best else []


def _param(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, float):
        return short(value)
    return str(value)


def _errors(study: Study) -> list[str]:
    """Return each reason why trials failed, with how many did."""
    errors = list(study.errors().values())
    lines = []
    for text in dict.fromkeys(errors):
        count = errors.count(text)
        lines.append(f"WARNING: {count} {_plural('trial', count)} failed: {text}")
    return lines


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _conclude(
    console: "Console",
    study: Study,
    result: Result,
    judgement: Judgement | None,
    budget: Budget,
    apply: bool | None,
) -> None:
    """Say what follows, and write `config/model.yaml` if the best params are to replace it."""
    best = result.best
    if best is None or judgement is None:
        console.print(f"Nothing better than the present params was found: {MODEL} stays as it is.")
        console.print(_how_to_continue(study, result, budget))
        return
    skill = f"skill over the present params {_value(judgement.skill)}"
    where = f"on {judgement.rows:,} training rows that the search has not seen"
    if judgement.is_better:
        console.print(f"The gain is beyond noise: {where}, {skill}.")
    elif judgement.skill.value is not None and judgement.skill.value > 0:
        console.print(f"The gain is within noise: {where}, {skill}.")
    else:
        console.print(f"There is no gain: {where}, {skill}.")
    if apply is False or not (judgement.is_better or apply):
        way = "`ml tune --apply` writes the best params to it all the same."
        if judgement.is_better:
            way = "`ml tune` writes the best params to it."
        console.print(f"{MODEL} stays as it is: {way}")
        console.print(_how_to_continue(study, result, budget))
        return
    before = MODEL.read_text("utf-8")
    values = {key: spaces.value_of(best.model, key) for key in study.space}
    changed = {
        key: value
        for key, value in values.items()
        if value != spaces.value_of(result.present.model, key)
    }
    after = write_params(changed)
    for line in _diff(before, after):
        console.print(line, markup=False)
    subject = f"Tune {best.model.estimator}"
    console.print(
        f"\nWrote {MODEL}. Next: ml run, then git add {TUNE} {MODEL} && git commit -m '{subject}'"
    )


def _how_to_continue(study: Study, result: Result, budget: Budget) -> str:
    ended = len(study.ended())
    if not result.is_complete:
        return f"{ended} of {budget.trials} trials were tried: `ml tune` continues."
    return f"`ml tune --trials {2 * ended}` continues the search."


def write_params(values: dict[Key, Any]) -> str:
    """Set params in `config/model.yaml`, whose comments stay, and return its new text.

    Raises:
        UsageError: The file is written in a way that cannot be edited.
    """
    content = MODEL.read_bytes().decode("utf-8")
    is_windows = "\r\n" in content
    keys: dict[Sequence[str], Any] = {("params", *key): value for key, value in values.items()}
    text = set_values(content.replace("\r\n", "\n"), keys, str(MODEL))
    with atomic_write(MODEL) as new:
        new.write_bytes((text.replace("\n", "\r\n") if is_windows else text).encode())
    return text


def _diff(before: str, after: str) -> Sequence[str]:
    lines = unified_diff(
        before.splitlines(), after.splitlines(), str(MODEL), str(MODEL), lineterm=""
    )
    return list(lines)
