"""The commands of level 1: tracking, registry, service, deployment, monitoring, retraining."""

import json
import os
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Annotated, Any

import typer
from typer import Argument, Option

from .. import RefusedError, UsageError, adapters, project
from .data import add_data
from .score import score

START = Path.cwd()
export_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Take a model to another system."
)
labels_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Record what really happened."
)
Version = Annotated[
    str | None,
    Argument(help="A version, a unique part of one, or VERSION@sha256:DIGEST."),
]

Target = Annotated[
    str | None, Option(help="local; with Kubernetes, kubernetes/production or kubernetes/staging.")
]


def add(app: typer.Typer, data_app: typer.Typer) -> None:
    """Give `ml` these commands."""
    for command in (
        track, register, resolve, models, fetch, promote, rollback, serve, parity, deploy, smoke,
        score, status, stop, monitor, retrain, comment, sign, verify, sbom,
    ):  # fmt: skip
        app.command()(command)
    app.command("controls")(show_controls)
    if project.current().level >= 2:
        app.command()(image)
    labels_app.command("add")(add_labels)
    export_app.command("onnx")(export_onnx)
    app.add_typer(export_app, name="export")
    app.add_typer(labels_app, name="labels")
    data_app.command("add")(add_data)


def _load(name: str) -> ModuleType:
    """Import a part, heavy as it may be."""
    return import_module(f"..{name}", __package__)


def run(base: str | None = None) -> None:
    """Run what is stale of the pipeline, and record the run, passed or refused.

    Args:
        base: A commit by whose gate and delivery settings the model is judged, too.
    """
    from .app import main

    controls = _load("controls")
    controls.forget()
    comparison = controls.compared(base) if base else None
    with _load("step_runner").start(main) as variables:
        _load("registry").refresh_champion_pointer()  # a new champion makes the comparison stale
        _load("stamp").refresh()  # and another runtime every step
        _measure_again()
        last_verdict = _gate_digest()
        tracker = adapters.load("tracker", "mlflow")
        has_ended = False
        try:
            adapters.load("pipeline", "dvc").run(variables, on_stage=tracker.prepare)
            if comparison:
                controls.judge(comparison)
            has_ended = True
        finally:
            if comparison:
                _report(comparison)
            # What ended before its gate is no run: the last one is another, and is recorded.
            if has_ended or _gate_digest() != last_verdict:
                typer.echo(tracker.record())
    is_new = _gate_digest() != last_verdict
    typer.echo(f"{'accepted' if is_new else 'nothing is stale'}: {_packaged_model()}")


def _gate_digest() -> str:
    """Return the digest of the last verdict of the gate; "" if there is none."""
    artifacts = _load("artifacts")
    gate = artifacts.DOCUMENTS["gate"]
    return str(artifacts.digest(gate)) if gate.exists() else ""


def _packaged_model() -> str:
    package: Path = _load("artifacts").PACKAGE
    version = json.loads((package / "manifest.json").read_text("utf-8"))["version"]
    return f"{package}/ has version {version}"


def run_only(step: str) -> None:
    """Run one step of the pipeline if it is stale, as another system that runs the graph asks for.

    A run is recorded with its last step, or with its gate if that refuses.
    """
    _load("controls").forget()
    _load("registry").refresh_champion_pointer()
    _load("stamp").refresh()
    if step == "evaluate":
        _measure_again()
    is_end = step == "package"
    try:
        adapters.load("pipeline", "dvc").run({}, on_stage=lambda: None, only=step)
    except RefusedError:
        is_end = step in ("gate", "package")
        raise
    finally:
        if is_end:
            typer.echo(adapters.load("tracker", "mlflow").record())


def _report(comparison: Any) -> None:
    """Write the report with what differs in the controls, even if the own gate refused."""
    from ..config import load
    from ..pipeline import report

    controls = _load("controls")
    artifacts = _load("artifacts")
    with suppress(UsageError):  # nothing was judged at all
        if not artifacts.DOCUMENTS["controls"].exists():
            controls.record(comparison, None, [])
        report.write(load())


def show_controls(
    base: Annotated[str, Option(envvar="ML_BASE", help="A commit of this clone, to compare with.")],
    head: Annotated[
        str | None, Option(envvar="ML_HEAD", help="Another commit, instead of this checkout.")
    ] = None,
) -> None:
    """Print how gate and delivery settings differ from a commit's.

    The output is a Markdown table.
    """
    controls = _load("controls")
    if table := controls.table(controls.compared(base, head or None).changes):
        typer.echo(table)
    else:
        typer.echo(f"no setting differs from {base}", err=True)


def _measure_again() -> None:
    """Forget the metrics of a model that was refused for its latency, which DVC would keep.

    How fast it is depends on the machine and the hour; all else of them comes out the same.
    """
    artifacts = _load("artifacts")
    try:
        checks = artifacts.read_fields("gate")["checks"]
    except UsageError:  # there is no verdict yet
        return
    refused = {check.get("id") for check in checks if check["verdict"] == "refused"}
    if "latency" in refused:
        artifacts.DOCUMENTS["evaluate"].unlink(missing_ok=True)


def track() -> None:
    """Record the last run in MLflow, unless it is there already."""
    typer.echo(adapters.load("tracker", "mlflow").record())


def register(
    pinned: Annotated[bool, Option("--pinned", help="Print VERSION@sha256:DIGEST.")] = False,
) -> None:
    """Add the accepted package to the registry; print its version."""
    version = _load("registry").register()
    typer.echo(version.reference if pinned else version.version)


def resolve(
    version: Annotated[
        str | None, Argument(help="A version, a part of one, champion, or previous.")
    ] = None,
    optional: Annotated[
        bool, Option("--optional", help="Where there is no champion yet, print nothing.")
    ] = False,
) -> None:
    """Print VERSION@sha256:DIGEST, which names one exact package."""
    registry = _load("registry")
    if version == registry.CHAMPION and registry.current_champion() is None:
        if optional:
            return
        raise UsageError("there is no champion yet: `ml deploy` makes one")
    typer.echo(registry.find(version).reference)


def models() -> None:
    """List registered versions: metrics, lineage, the champion."""
    _load("registry").print_versions()


def fetch(
    version: Annotated[
        str, Argument(help="A version, a part of one, champion, or VERSION@sha256:DIGEST.")
    ],
    to: Annotated[Path, Option(help="Where to put it: a new folder, or one that has a package.")],
) -> None:
    """Download a package from the registry, and verify it."""
    registry = _load("registry")
    folder = START / to
    registry.require_replaceable(folder)
    typer.echo(registry.fetch_version(registry.find(version), folder))


def export_onnx(
    to: Annotated[Path, Option(help="A folder, new or empty.")],
    version: Annotated[
        str | None, Argument(help="A version in the registry; without it the last `ml run`'s.")
    ] = None,
) -> None:
    """Write a compiled model, and what it takes and returns, for any runtime of ONNX."""
    export = _load("compiled.export").export
    if version is None:
        typer.echo(export(_load("artifacts").PACKAGE, START / to))
        return
    registry = _load("registry")
    with TemporaryDirectory(prefix="ml-export-") as folder:
        package = registry.fetch_version(registry.find(version), Path(folder, "package"))
        typer.echo(export(package, START / to))


def image(
    version: Version = None,
    push: Annotated[bool, Option("--push", help="Push it to the image registry.")] = False,
    noted: Annotated[
        bool, Option("--noted", help="Print the image that the version has; build none.")
    ] = False,
) -> None:
    """Build the image of a version, once, and check its answers."""
    images = _load("delivery.image")
    if not noted:
        typer.echo(images.image(version, push))
    elif push or version is None:
        raise UsageError("--noted prints the image that a version has: name one, without --push")
    elif image_digest := images.noted(version):
        typer.echo(image_digest)


def sign(
    version: Annotated[str, Argument(help="A version, a part of one, or champion.")],
    key: Annotated[
        Path | None, Option(help="A private key, PEM; ML_SIGNING_PASSWORD unlocks it.")
    ] = None,
    bundle: Annotated[Path | None, Option(help="A signature that was made elsewhere.")] = None,
    unsigned: Annotated[
        Path | None, Option(help="Sign nothing: write what is to be signed to this folder.")
    ] = None,
) -> None:
    """Sign a registered version, as OpenSSF Model Signing does."""
    signature = _load("registry.signature")
    if sum(option is not None for option in (key, bundle, unsigned)) != 1:
        raise UsageError("name one of --key, --bundle and --unsigned")
    if unsigned:
        typer.echo(signature.write_unsigned(version, START / unsigned))
    else:
        typer.echo(signature.sign(version, key and START / key, bundle and START / bundle))


def verify(
    version: Annotated[str, Argument(help="A version, a part of one, or champion.")],
    key: Annotated[
        Path | None,
        Option(help="A public key, PEM; by default, signed_by in config/delivery.yaml."),
    ] = None,
) -> None:
    """Check that a registered version is what was signed."""
    typer.echo(_load("registry.signature").verify(version, key and START / key))


def sbom(version: Version = None) -> None:
    """Write artifacts/sbom.json, a CycloneDX bill of materials."""
    typer.echo(_load("delivery.sbom").sbom(version))


def promote(version: Version = None) -> None:
    """Make a version, by default the newest, the champion."""
    typer.echo(_load("registry").promote(version))


def rollback(
    to: Annotated[
        str | None, Option(help="An earlier champion, or its VERSION@sha256:DIGEST.")
    ] = None,
    target: Target = None,
) -> None:
    """Return to the previous champion, in registry and service."""
    typer.echo(_load("delivery").rollback(to, target))


def serve(
    package: Annotated[Path | None, Option(help="A package other than artifacts/model.")] = None,
    port: Annotated[
        int | None,
        Option(min=0, max=65_535, help="A port other than that in config/delivery.yaml."),
    ] = None,
) -> None:
    """Serve a package in this terminal, until Ctrl-C.

    `ml deploy` serves the champion in the background.
    """
    _load("serving.main").limit_threads()
    settings = _load("config.delivery").load_delivery().service
    changed = settings if port is None else settings.model_copy(update={"port": port})
    _load("serving").serve(START / package if package else _load("artifacts").PACKAGE, changed)


def parity(
    file: Annotated[Path | None, Argument(help="Rows to send; by default, the holdout.")] = None,
    url: Annotated[
        str | None, Option(help="The address of the service; by default, the local one.")
    ] = None,
) -> None:
    """Check that the service answers as the champion does here."""
    import polars as pl

    from .. import artifacts, model_package, registry, serving
    from ..adapters import target_local as local
    from ..config.delivery import load_delivery
    from ..pipeline import ingest

    champion = registry.current_champion()
    service = load_delivery().service
    if champion is None:
        raise UsageError("there is no champion yet: `ml deploy` makes one")
    registry.require_expected(champion)
    folder = artifacts.ARTIFACTS / "champion" / champion.version
    model = model_package.load_package(registry.fetch_version(champion, folder), champion.digest)
    if file:
        rows = ingest.read(START / file, model.data.separator)
    else:
        artifacts.verified_digest(artifacts.HOLDOUT)
        rows = pl.read_parquet(artifacts.HOLDOUT)
    running = local.running()
    local_url = running["url"] if running else f"http://{service.host}:{service.port}"
    address = url or local_url
    typer.echo(serving.check_parity(address.rstrip("/"), rows, model))


def deploy(
    version: Version = None,
    target: Annotated[
        str | None, Option(help="local, or kubernetes if the project has it.")
    ] = None,
) -> None:
    """Deploy a version, by default the newest.

    The stages are fetch, shadow, promote, switch, smoke and watch. If one fails, the previous
    model serves again.
    """
    typer.echo(_load("delivery").deploy(version, target))


def smoke(
    version: Annotated[str | None, Argument(help="A version other than the champion.")] = None,
    url: Annotated[str | None, Option(help="The address of the service.")] = None,
) -> None:
    """Check that the service answers as its model does."""
    typer.echo(_load("delivery").smoke(url, version))


def status(target: Target = None) -> None:
    """Show what serves; finish or undo a killed deployment."""
    typer.echo(_load("delivery").status(target))


def stop() -> None:
    """Stop the local service, after the requests that it has."""
    typer.echo(_load("delivery").stop())


def monitor() -> None:
    """Check recent predictions, and decide whether to retrain.

    Judged are drift, violations of the contract, performance, and the age of the champion.
    """
    if not _unserved():
        typer.echo(_load("monitoring").monitor())


def retrain(
    again: Annotated[
        str | None, Option(help="An alarm whose training was killed or failed.")
    ] = None,
    dispatch: Annotated[
        bool, Option("--dispatch", help="On a runner: have the platform start the pipeline.")
    ] = False,
) -> None:
    """Run, register and deploy, if the monitor decided to.

    Each alarm leads to one training.
    """
    if dispatch and _unserved():
        return
    train = _train
    outcome = "trained"
    if dispatch:
        train = _load("ci_platform").require_platform().train
        outcome = "a training was started"
    typer.echo(_load("monitoring").retrain(train, again, outcome))


def _unserved() -> bool:
    """Check whether this is a runner with no service, and so no log; if so, show a notice."""
    delivery = _load("delivery")
    log = _load("config.delivery").load_delivery().service.log
    if "://" in log:
        return False
    platform = delivery.rehearsal_platform()
    if platform is None:
        return False
    platform.notice(f"Nothing is monitored, as nothing serves here. {delivery.OWN_MACHINE_HINT}")
    return True


def comment() -> None:
    """Write or update the report comment on a pull request."""
    from ..config import load
    from ..escaping import cell, code
    from ..pipeline import report

    platform = _load("ci_platform").require_platform()
    settings = load()
    jobs = platform.jobs()
    try:
        text = report.write(settings)
    except Exception as error:  # of documents that the request's own code has made
        reason = code(f"{type(error).__name__}: {error}", 500)
        text = f"# Predicting {code(settings.data.target)}\n\n❌ There is no report: {reason}\n"
    marks = {"success": "✅", "skipped": "not run"}
    rows = []
    for name, result in jobs.items():
        mark = f"❌ {result if result.isalpha() else cell(result)}"
        rows.append(f"| {cell(name)} | {marks.get(result, mark)} |")
    table = "\n".join(["", "## Jobs", "", "| | |", "|---|---|", *rows, ""]) if jobs else ""
    base = os.environ.get("ML_BASE")
    head = os.environ.get("ML_HEAD")
    if base and head:  # told by this job, and not by documents of the request
        controls = _load("controls")
        try:
            changes = controls.table(controls.compared(base, head).changes)
        except UsageError as error:  # else a comment of before would stay
            changes = f"❌ It cannot be read: {code(error, 500)}"
        about = "\n## What models are judged by\n\nThis request changes it, says Git:"
        table += f"{about}\n\n{changes}\n" if changes else ""
    reason = platform.comment(text, table)
    typer.echo(f"no comment: {reason}" if reason else "the comment is up to date")


def _train() -> None:
    run()
    registry = _load("registry")
    champion = registry.current_champion()
    new = registry.register()
    if champion == new:
        typer.echo(f"the run produced {new} again: `ml data add` brings more rows to learn from")
    typer.echo(_load("delivery").deploy(new.reference, None))


def add_labels(
    file: Annotated[Path, Argument(help="CSV or Parquet: request_id or the keys, and the target.")],
) -> None:
    """Record what really happened, for `ml monitor` to compare."""
    typer.echo(_load("prediction_log").add_labels(START / file))
