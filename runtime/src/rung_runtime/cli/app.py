"""The command `ml`. What is heavy is imported by the command that needs it."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from .. import RefusedError, UsageError, crashes, problem, progress, project, runner_log
from .start import STEPS as ALL_STEPS
from .start import leave, leave_with_bug

if TYPE_CHECKING:
    import polars as pl

    from ..model_package import Model

# Which commands there are depends on the project; what is wrong with it is said by `main`. Outside
# of one, a copy for level 0 has no more than the pipeline.
HAS_LOOP = False
with suppress(UsageError):
    HAS_LOOP = project.current().has_loop and find_spec(f"{__package__}.delivery") is not None
STEPS = ALL_STEPS.copy()
if not HAS_LOOP:
    del STEPS["compare"]
START = Path.cwd()
CLOSED_PIPE = 141  # as shells say it: 128, and the number of SIGPIPE


class KeptError(Exception):
    """An exception that Typer must not see: the cause of this one."""


class Commands(TyperGroup):
    """Commands whose exceptions `main` reports.

    Typer takes the end of any file, and of any pipe, for a person who has left, and ends with 1.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (EOFError, BrokenPipeError) as error:
            raise KeptError from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Train, judge and serve the model of this project.",
    epilog="Exit codes: 0 done, 1 a check refused, 2 bad usage or input, 70 a bug of ml.",
)
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Bring your own data.")
app.add_typer(data_app, name="data")
check_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Attack the model, and see what comes of it."
)
app.add_typer(check_app, name="check")


def perform(name: str) -> None:
    """Run one step, and print its outcome."""
    from .. import config

    console = progress.open_console(sys.stdout)
    start = time.monotonic()
    with console.status(f"{name} …"):
        outcome = import_module(f"..pipeline.{name}", __package__).step(config.load())
    seconds = time.monotonic() - start
    console.print(progress.stage_line("[green]✓[/]", name, seconds, outcome))


def _command(name: str) -> Callable[[], None]:
    return lambda: perform(name)


for _name, _about in STEPS.items():
    if HAS_LOOP and _name == "validate":
        app.command()(import_module(".partitioned", __package__).validate)
    else:
        app.command(_name, help=_about)(_command(_name))


@app.command()
def run(
    base: Annotated[
        str | None,
        Option(envvar="ML_BASE", help="A commit whose gate the model must pass as well (level 1)."),
    ] = None,
    only: Annotated[
        str | None, Option(metavar="STEP", help="One step, for another system that runs the graph.")
    ] = None,
) -> None:
    """Run the whole pipeline; from level 1, only what is stale."""
    if only and only not in STEPS and not HAS_LOOP:  # from level 1, dvc.yaml may have more stages
        raise UsageError(f"--only: there is no step {only}: use one of {', '.join(STEPS)}")
    if only and base:
        raise UsageError("--only and --base exclude each other: a request is judged as a whole")
    if HAS_LOOP:
        delivery = import_module(".delivery", __package__)
        if only:
            delivery.run_only(only)
        else:
            delivery.run(base or None)
    else:
        for name in [only] if only else STEPS:
            with crashes.explained(name):
                perform(name)


@app.command()
def report() -> None:
    """Write artifacts/report.html, and report.md for a pull request."""
    from .. import config
    from ..pipeline import report

    typer.echo(report.write(config.load()))


@app.command()
def tune(
    trials: Annotated[
        int | None, Option(min=1, help="Trials of the whole search; default: config/tune.yaml.")
    ] = None,
    minutes: Annotated[
        float | None, Option(min=0, help="Minutes of this run; default: config/tune.yaml.")
    ] = None,
    workers: Annotated[
        int | None, Option(min=1, help="Trials at a time; default: one on each core.")
    ] = None,
    apply: Annotated[
        bool | None,
        Option(
            "--apply/--no-apply",
            help="Write the best params even if their gain may be chance; or never.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None, Option(help="The address of a cluster of Dask; default: config/scale.yaml.")
    ] = None,
) -> None:
    """Search better params, on training rows alone."""
    from ..tuning.command import tune

    try:
        tune(trials, minutes, workers, apply=apply, scheduler=scheduler)
    except KeyboardInterrupt as stopped:
        leave(130, str(stopped) or "stopped")


@app.command()
def predict(
    file: Annotated[
        Path | None,
        Argument(help="CSV or Parquet, with the columns of the data; or a folder of such files."),
    ] = None,
    rows: Annotated[
        str | None, Option("--json", help="One row as a JSON object, or a list of them.")
    ] = None,
    to: Annotated[
        Path | None,
        Option(
            help="Write a .parquet or .csv file instead, FILE may be of any size; a folder for one."
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        Option(help="With --to, a column of FILE to write, too, such as an ID; repeatable."),
    ] = None,
    engine: Annotated[
        str | None, Option(help="Of a folder: polars, dask or spark; default: config/scale.yaml.")
    ] = None,
    scheduler: Annotated[
        str | None, Option(help="Of a folder: a cluster's address; default: one starts here.")
    ] = None,
) -> None:
    """Predict rows with the packaged model, one JSON object per row."""
    from .. import model_package
    from ..pipeline import bulk

    if (file is None) == (rows is None):
        raise UsageError("name either a file or, with --json, rows")
    if to and not file:
        raise UsageError("--to is for the predictions of a file")
    if keep and not to:
        raise UsageError("--keep is for the file that --to names")
    is_folder = file is not None and (START / file).is_dir()
    if (engine or scheduler) and not is_folder:
        raise UsageError("--engine and --scheduler are for a folder of files: name one")
    model = model_package.load_package()
    if file and is_folder:
        _predict_folder(model, START / file, to, keep or [], engine, scheduler)
        return
    if file and to:
        with progress.stages():
            outcome = bulk.predict_file(model, START / file, START / to, keep or ())
        typer.echo(outcome)
        return
    if file:
        predicted = bulk.predict_lines(model, START / file)
    else:
        failures = bulk.Failures(model)
        known = failures.judge(_parse_rows(rows or ""))
        failures.refuse()
        predicted = bulk.lines(model, known)
    for text in predicted:
        typer.echo(text)


def _predict_folder(
    model: "Model",
    folder: Path,
    to: Path | None,
    keep: list[str],
    engine: str | None,
    scheduler: str | None,
) -> None:
    """Predict each file of a folder into another one.

    Raises:
        UsageError: No folder is named to write to, or the project has no engines.
    """
    if not HAS_LOOP:
        raise UsageError(f"{folder} is a folder, which level 1 predicts: name a file, or `rung up`")
    if to is None:
        raise UsageError(f"{folder} is a folder: name another one with --to, for its predictions")
    engines, partitioned = (
        import_module(name, __package__) for name in ("..engines", "..partitioned.predict")
    )
    with engines.open_engine(engine, scheduler) as opened, progress.stages():
        message = partitioned.predict_source(model, str(folder), str(START / to), keep, opened)
    typer.echo(message)


def _parse_rows(text: str) -> "pl.DataFrame":
    """Return the rows that `--json` gives."""
    import polars as pl

    try:
        document = json.loads(text)
        table = [document] if isinstance(document, dict) else document
        if table == [] or not all(isinstance(row, dict) and row for row in table):
            raise ValueError("give an object of columns, or a list of them")
        return pl.DataFrame(table, infer_schema_length=None)
    except (ValueError, TypeError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"--json: {str(error).splitlines()[0]}") from None


@data_app.command()
def use(
    file: Annotated[Path, Argument(help="CSV with any delimiter, plain or gzipped, or Parquet.")],
    target: Annotated[str, Option(help="The column to predict.")],
    time: Annotated[str | None, Option(help="The column that says when a row was created.")] = None,
    group: Annotated[
        str | None,
        Option(help="Keep rows with the same value in this column together; none: do not."),
    ] = None,
    task: Annotated[str | None, Option(help="binary, multiclass or regression.")] = None,
    rare_classes: Annotated[
        str | None,
        Option(help="Classes with fewer than 10 rows: drop their rows, or merge into other."),
    ] = None,
    replace: Annotated[
        bool, Option("--replace", help="Replace files of yours that are in the way.")
    ] = False,
) -> None:
    """Infer contract, task, split and gate from your file.

    It explains what it decides, and writes config/ and a copy of the file in data/raw/.
    """
    from ..contract.onboard import use

    options = {"time": time, "group": group, "task": task, "rare_classes": rare_classes}
    use(START / file, target, replace=replace, **options)


@check_app.command()
def robustness(
    rows: Annotated[int, Option(min=1, help="How many rows of the holdout to attack.")] = 30,
) -> None:
    """See by how little a row must change for another answer."""
    from .. import config
    from ..pipeline.attacks import check_robustness

    typer.echo(check_robustness(config.load(), rows))


@check_app.command()
def privacy() -> None:
    """See how well answers tell which rows were trained on."""
    from .. import config
    from ..pipeline.attacks import check_privacy

    typer.echo(check_privacy(config.load()))


if HAS_LOOP:
    import_module(".delivery", __package__).add(app, data_app)


def main() -> None:
    """Run `ml` in the project that the current folder is in."""
    with runner_log.filtered():
        _main()


def _main() -> None:
    try:
        if len(sys.argv) > 1 and "--help" not in sys.argv:
            os.chdir(_root())
        project.current()
        is_step = len(sys.argv) == 2 and sys.argv[1] in STEPS
        with crashes.explained(sys.argv[1]) if is_step else nullcontext():
            app()
    except RefusedError as refused:
        leave(1, refused)
    except UsageError as wrong:
        leave(2, wrong)
    except OSError as error:  # a full disk, a folder that is not ours
        leave(2, f"{error.filename or 'a file'} cannot be used: {error.strerror or error}")
    except KeptError as kept:
        if isinstance(kept.__cause__, BrokenPipeError):
            _leave_closed_pipe()
        _leave_with(kept.__cause__)
    except Exception as error:
        _leave_with(error)


def _leave_with(error: BaseException | None) -> NoReturn:
    """End with an exception: of a line of the user's own code, or as a bug."""
    calls = traceback.extract_tb(error.__traceback__ if error else None)
    yours = [call for call in calls if _is_problem(Path(call.filename).parent)]
    if yours:
        where = f"problem/{Path(yours[-1].filename).name}, line {yours[-1].lineno}"
        message = str(error).strip().partition("\n")[0]
        leave(2, f"{where}: {type(error).__name__}: {message}")
    leave_with_bug()


def _leave_closed_pipe() -> NoReturn:
    """End as a program does that SIGPIPE ended, such as by `ml predict … | head`."""
    with suppress(OSError, ValueError):  # what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    leave(CLOSED_PIPE, "the pipe is closed that the output, or a request, was written to")


def _is_problem(folder: Path) -> bool:
    """Check whether a folder is the project's `problem/`, or the copy that a package brought."""
    packaged = folder.name == "problem" and (folder.parent / "manifest.json").is_file()
    return packaged or folder == problem.folder()


def _root() -> Path:
    for folder in (START, *START.parents):
        if (folder / "config").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    raise UsageError(f"{START} is in no project: go to a folder with config/ and pyproject.toml")
