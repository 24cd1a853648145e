"""`ml score`: score many rows at once, as scheduled jobs do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from .. import UsageError, progress
from .partitioned import EngineOption, SchedulerOption
from .partitioned import from_start as _from_start

if TYPE_CHECKING:
    from ..ci_platform import Platform
    from ..config.delivery import Delivery
    from ..isolation.model import IsolatedModel

START = Path.cwd()


def score(
    source: Annotated[
        str | None,
        Argument(
            help="A file, a folder, a Delta table or a URL of one.", show_default="score.source"
        ),
    ] = None,
    to: Annotated[
        str | None, Option(help="The sink: a folder or a URL.", show_default="score.sink")
    ] = None,
    model: Annotated[
        str | None,
        Option(
            help="champion, a version, or VERSION@sha256:DIGEST.",
            show_default="score.model, which is champion if not set",
        ),
    ] = None,
    package: Annotated[
        Path | None, Option(help="A package that is not in the registry, as artifacts/model.")
    ] = None,
    max_refused: Annotated[
        float | None,
        Option(
            min=0,
            max=1,
            help="The share of a partition that may be refused.",
            show_default="score.max_refused, which is 0.01 if not set",
        ),
    ] = None,
    table_format: Annotated[
        str | None,
        Option(
            "--format",
            help="Of the scores: parquet or delta.",
            show_default="score.format, which is parquet if not set",
        ),
    ] = None,
    source_version: Annotated[
        int | None, Option(help="Of a Delta table, to score.", show_default="the newest")
    ] = None,
    rescore: Annotated[
        bool, Option("--rescore", help="Score again what another model has scored.")
    ] = False,
    engine: EngineOption = None,
    scheduler: SchedulerOption = None,
    print_model: Annotated[
        bool, Option("--print-model", help="Print the configured model, if there is a source.")
    ] = False,
) -> None:
    """Score a source of many rows into a sink, exactly once.

    What is not named is in config/delivery.yaml, under score.
    """
    from .. import scoring
    from ..config.delivery import DELIVERY, Score, load_delivery
    from ..config.files import validate
    from ..engines import open_engine
    from ..storage import normalized

    delivery = load_delivery()
    named = {
        "source": source and _from_start(source),
        "sink": to and _from_start(to),
        "model": model,
        "max_refused": max_refused,
        "format": table_format,
    }
    overrides = {key: value for key, value in named.items() if value is not None}
    settings = validate(delivery.score.model_dump() | overrides, Score, "ml score")
    if print_model:
        if settings.source:
            typer.echo(settings.model)
        return
    if not settings.source:
        raise UsageError(f"name a source, or set score.source in {DELIVERY}")
    if not settings.sink:
        raise UsageError(f"name a sink with --to, or set score.sink in {DELIVERY}")
    _require_lasting(normalized(settings.sink))
    with _open_model(settings.model, package) as opened:
        options = scoring.Options(
            max_refused=settings.max_refused,
            table_format=settings.format,
            source_version=source_version,
            rescore=rescore,
            separator=opened.data.separator,
            log=_log(delivery),
            log_rows=settings.log_rows,
            private=delivery.service.private,
        )
        with open_engine(engine, scheduler) as runs_on, progress.stages():
            message = scoring.score(settings.source, settings.sink, opened, options, runs_on)
    typer.echo(message)


@contextmanager
def _open_model(name: str, package: Path | None) -> Iterator["IsolatedModel"]:
    """Open a package in a process of its own, verified as a deployment does.

    This process may hold a job's token and the login of an object store; code of a package is not
    run beside them.

    Raises:
        UsageError: There is none, or it is damaged.
        RefusedError: It is not the one that was verified, or is not signed as it must be.
    """
    from ..isolation.model import open_isolated
    from ..isolation.pipe import PackageError

    folder, digest = _verified(name, package)
    try:
        with open_isolated(folder, digest, watches_project=False) as model:
            yield model
    except PackageError as error:
        raise UsageError(error.sentence) from None


def _verified(name: str, package: Path | None) -> tuple[Path, str]:
    """Return the folder of a package, and its digest. None of its code has run then.

    Raises:
        UsageError, RefusedError: See `_open_model`.
    """
    from .. import registry
    from ..artifacts import ARTIFACTS
    from ..model_package import verified_manifest

    if package is not None:
        return START / package, verified_manifest(START / package)["package_digest"]
    if name == registry.CHAMPION:
        champion = registry.current_champion()
        if champion is None:
            raise UsageError("there is no champion yet: `ml deploy` makes one; or name a --package")
        version = registry.require_expected(champion)
    else:
        version = registry.find(name)
    folder = registry.fetch_version(version, ARTIFACTS / "champion" / version.version)
    return folder, version.digest


def _job_platform() -> "Platform | None":
    """Return the CI platform, if the folders of this machine end with its job."""
    from .. import ci_platform

    platform = ci_platform.current_platform()
    if platform is None or platform.workspace.resolve() != Path.cwd().resolve():
        return None
    return platform


def _require_lasting(sink: str) -> None:
    """Check that the sink does not end with the job.

    Raises:
        UsageError: This is a runner, and the sink one of its folders.
    """
    if "://" not in sink and _job_platform():
        raise UsageError(
            f"{sink} is a folder of this runner, and ends with the job: name an object store's URL,"
            " or set the variables ML_HOME and ML_RUNNER to score on a machine of your own"
        )


def _log(delivery: "Delivery") -> str:
    """Return the prediction log; "" if there is none, or if it would end with the job."""
    log = delivery.service.log
    platform = None if "://" in log else _job_platform()
    if log and platform:
        platform.notice("The scores are not monitored: the prediction log would end with the job.")
        return ""
    return log
