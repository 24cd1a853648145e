"""The commands that run the pipeline from level 1 on, and record its runs."""

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .. import RefusedError, UsageError, adapters
from .parts import load_part

if TYPE_CHECKING:
    from ..controls import Controls
    from ..records import GateDocument

# Until there is a model, steps use all cores, and what a tracker imports would slow them down.
UNTIL_TRAINED = ("ingest", "validate", "split", "train")


def run(base: str | None = None) -> None:
    """Run what is stale of the pipeline, and record the run, passed or refused.

    Args:
        base: A commit by whose gate and delivery settings the model is judged, too.
    """
    from .app import main

    controls = load_part("controls")
    controls.forget()
    comparison = controls.compared(base) if base else None
    with load_part("step_runner").start(main) as variables:
        # A new champion makes the comparison stale, and another runtime every step.
        load_part("registry").refresh_champion_pointer()
        load_part("stamp").refresh()
        _measure_again()
        last_verdict = _gate_digest()
        tracker = adapters.load("tracker", "mlflow")
        has_ended = False

        def prepare_tracker(stage: str = "") -> None:  # an adapter of 0.3 names none
            if stage not in UNTIL_TRAINED:
                tracker.prepare()

        try:
            adapters.load("pipeline", "dvc").run(variables, on_stage=prepare_tracker)
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


def run_only(step: str, *, is_recorded: bool = True) -> None:
    """Run one step of the pipeline if it is stale, as another system that runs the graph asks for.

    A run is recorded with its last step, or with its gate if that refuses.
    """
    load_part("controls").forget()
    load_part("registry").refresh_champion_pointer()
    load_part("stamp").refresh()
    if step == "evaluate":
        _measure_again()
    is_end = step == "package"
    try:
        adapters.load("pipeline", "dvc").run({}, on_stage=lambda _: None, only=step)
    except RefusedError:
        is_end = step in ("gate", "package")
        raise
    finally:
        if is_end and is_recorded:
            typer.echo(adapters.load("tracker", "mlflow").record())


def track() -> None:
    """Record the last run in MLflow, unless it is there already."""
    typer.echo(adapters.load("tracker", "mlflow").record())


def _gate_digest() -> str:
    """Return the digest of the last verdict of the gate; "" if there is none."""
    artifacts = load_part("artifacts")
    gate = artifacts.DOCUMENTS["gate"]
    return str(artifacts.digest(gate)) if gate.exists() else ""


def _packaged_model() -> str:
    package: Path = load_part("artifacts").PACKAGE
    version = json.loads((package / "manifest.json").read_text("utf-8"))["version"]
    return f"{package}/ has version {version}"


def _measure_again() -> None:
    """Forget the metrics of a model that was refused for its latency, which DVC would keep.

    How fast it is depends on the machine and the hour; all else of them comes out the same.
    """
    artifacts = load_part("artifacts")
    try:
        gate: GateDocument = artifacts.read(load_part("records").GateDocument)
    except UsageError:  # there is no verdict yet
        return
    if any(check.id == "latency" and check.verdict == "refused" for check in gate.checks):
        artifacts.DOCUMENTS["evaluate"].unlink(missing_ok=True)


def _report(comparison: "Controls") -> None:
    """Write the report with what differs in the controls, even if the own gate refused."""
    from ..config import load
    from ..pipeline import report

    controls = load_part("controls")
    artifacts = load_part("artifacts")
    with suppress(UsageError):  # nothing was judged at all
        if not artifacts.DOCUMENTS["controls"].exists():
            controls.record(comparison, None, [])
        report.write(load())
