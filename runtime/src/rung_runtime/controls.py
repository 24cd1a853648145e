"""Controls: judge a pull request by the gate of the branch it would change, not by its own.

A request can change `config/gate.yaml` and `config/delivery.yaml` like any other file, and a lower
threshold would pass what the team refuses. So the model is judged twice: by the request's own
files, as everywhere, and by those of the base, in a copy of the project. Both must pass. What
differs is shown, before and after: `controls.json`, and the report.

A request can also change the code that judges. That is for a person to see: who may is in
CODEOWNERS.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import RefusedError, UsageError, config, process
from .artifacts import ARTIFACTS, DOCUMENTS, digest, now, read, write
from .config import DATA, GATE, HIGHER_IS_BETTER, METRICS, Data, Gate, Strict, parse_yaml, validate
from .config.delivery import DELIVERY, Delivery
from .records import Change, ControlsDocument, MetricsDocument, Verdict

FILES: dict[Path, type[Strict]] = {GATE: Gate, DELIVERY: Delivery}
JUDGED = ARTIFACTS / "base"  # what came of it, by the base's files
STEPS = ("evaluate", "compare", "gate")
ABSENT = "(none)"
SIGNALLED = 128  # plus the number of the signal, as shells say it
SHOWN_ONLY = "service."  # keys of how a service listens and logs, which decide on no model


@dataclass(frozen=True)
class Controls:
    """Gate and delivery settings of a base, beside those of this checkout."""

    base: str  # commit
    texts: dict[Path, str]  # of the base's files; one that it does not have is missing
    changes: list[dict[str, str]]  # file, key, before, after
    unfit: str | None  # why the base's gate cannot judge a model of this task


def compared(base: str, head: str | None = None) -> Controls:
    """Compare the controls of a commit with those of this checkout, or of another commit.

    Args:
        base: A commit, branch or tag that is in this clone.
        head: The same, instead of this checkout.

    Raises:
        UsageError: It is not, or a file of either cannot be read.
    """
    commit = _commit(base)
    other = _commit(head) if head else None
    texts = dict[Path, str]()
    changes = list[dict[str, str]]()
    for path, kind in FILES.items():
        before = _settings(commit, path, kind)
        after = _settings(other, path, kind)
        if (text := _text(commit, path)) is not None:
            texts[path] = text
        changes += [
            {
                "file": path.as_posix(),
                "key": key,
                "before": before.get(key, ABSENT),
                "after": after.get(key, ABSENT),
            }
            for key in [*after, *(key for key in before if key not in after)]
            if before.get(key) != after.get(key)
        ]
    unfit = _unfit(_parsed(texts[GATE], Gate, str(GATE))) if GATE in texts else "it has none"
    return Controls(commit, texts, changes, unfit)


def _commit(name: str) -> str:
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if commit is not None:
        return commit.strip()
    if _git("rev-parse", "--git-dir") is None:
        raise UsageError("Git opens no repository here, so there is no base: see `git status`")
    raise UsageError(f"{name} is not a commit of this clone: `git fetch origin {name}` brings it")


def _text(commit: str, path: Path) -> str | None:
    return _git("show", f"{commit}:./{path.as_posix()}")


def _settings(commit: str | None, path: Path, kind: type[Strict]) -> dict[str, str]:
    """Return the settings of a file in a commit, or of this checkout; {} if it is not there."""
    if commit is None:
        return _flat(config.read(path, kind))
    text = _text(commit, path)
    return {} if text is None else _flat(_parsed(text, kind, f"{path} of {commit:.8}"))


def _parsed(text: str, kind: type[Strict], where: str) -> Strict:
    return validate(parse_yaml(text, where), kind, where)


def _flat(settings: Strict) -> dict[str, str]:
    """Return each key with its value, defaults included."""
    flat: dict[str, str] = {}

    def add(value: Any, *keys: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                add(inner, *keys, str(key))
        else:
            flat[".".join(keys)] = str(value)

    add(settings.model_dump())
    return flat


def _unfit(gate: Any) -> str | None:
    """Return why a gate cannot judge a model of this checkout's task."""
    data = config.read(DATA, Data)
    for name in (gate.metric, *gate.thresholds):
        if name not in METRICS[data.task]:
            return f"its {name} is not a metric of a {data.task} task"
    if gate.costs and data.task != "binary":
        return f"a {data.task} task has no costs"
    if gate.fairness and (problem := gate.fairness.problem(data)):
        return f"its fairness does not fit: {problem}"
    return None


def looser(change: dict[str, str]) -> bool:
    """Check whether a change of a threshold, or of a limit of fairness, asks for less.

    False for other keys.
    """
    kind, _, name = change["key"].rpartition(".")
    if kind not in ("thresholds", "fairness.max_difference", "fairness.min_ratio"):
        return False
    if ABSENT in (change["before"], change["after"]):
        return change["after"] == ABSENT
    less = float(change["after"]) < float(change["before"])
    is_minimum = kind == "fairness.min_ratio" or (kind == "thresholds" and name in HIGHER_IS_BETTER)
    return less if is_minimum else not less


def judge(controls: Controls) -> None:
    """Judge the model of the last run by the base's controls, if these can differ in their verdict.

    Args:
        controls: As `compared` returns them.

    Raises:
        UsageError: A step cannot start, or has bad input.
        SystemExit: A step crashed.
        RefusedError: The gate of the base refuses the model.
    """
    if all(change["key"].startswith(SHOWN_ONLY) for change in controls.changes):
        record(controls, "passed", [])
        return
    with TemporaryDirectory(prefix=".base-", dir=ARTIFACTS) as folder:
        project = Path(folder)
        _copied(project, controls)
        code = 0
        message = ""
        for step in STEPS:
            code, message = _performed(step, project)
            if code:
                break
        kept = [DOCUMENTS[name] for name in STEPS if (project / DOCUMENTS[name]).exists()]
        JUDGED.mkdir()
        for path in kept:
            shutil.copy(project / path, JUDGED)
    if code not in (0, 1, 2):  # a crash is neither a refusal nor bad input
        sys.stderr.write(f"ml: by the controls of {controls.base:.8}: {message}\n")
        sys.exit(code if code > 0 else SIGNALLED - code)
    if code == 2:
        raise UsageError(f"by the controls of {controls.base:.8}: {message}")
    record(controls, "refused" if code else "passed", message.splitlines() if code else [])
    if code:
        raise RefusedError(
            f"by the controls of {controls.base:.8}, the base of this request: {message}"
        )


def _copied(project: Path, controls: Controls) -> None:
    """Lay out a project with the base's controls: links to all that judging only reads."""
    for path in Path().iterdir():
        if not path.name.startswith(".") and path.name not in ("artifacts", "config"):
            (project / path).symlink_to(path.absolute())
    shutil.copytree("config", project / "config")
    for path, text in controls.texts.items():
        if path != GATE or controls.unfit is None:
            (project / path).write_text(text, "utf-8")
    (project / ARTIFACTS).mkdir()
    for path in ARTIFACTS.iterdir():
        if path.is_file():
            shutil.copy2(path, project / path)
    if (champion := ARTIFACTS / "champion").is_dir():
        (project / champion).symlink_to(champion.absolute())


def _performed(step: str, project: Path) -> tuple[int, str]:
    """Run a step there; return its exit code and its message."""
    name = __package__.partition(".")[0]
    program = f"from {name}.cli import main; main()"
    command = [sys.executable, "-P", "-c", program, step]
    result = process.run(command, folder=project, output="shown")
    message = result.error_text.strip().removeprefix("ml: ")
    return result.returncode, message or "no reason given"


def forget() -> None:
    """Remove what an earlier run left."""
    DOCUMENTS["controls"].unlink(missing_ok=True)
    shutil.rmtree(JUDGED, ignore_errors=True)


def record(controls: Controls, verdict: Verdict | None, reasons: list[str]) -> None:
    """Write `controls.json`.

    Args:
        controls: As `compared` returns them.
        verdict: `passed` or `refused` by the base's controls; None: not judged by them.
        reasons: The lines of a refusal.
    """
    metrics = read(MetricsDocument)
    document = ControlsDocument(
        base=controls.base,
        changes=[Change(**change) for change in controls.changes],
        own_gate=controls.unfit,
        verdict=verdict,
        reasons=reasons,
        model_digest=metrics.model.digest,
    )
    inputs = {str(path): digest(path) for path in FILES}
    write(document, started=now(), data_digest=metrics.data_digest, inputs=inputs)


def table(changes: list[dict[str, str]]) -> str:
    """Return changes as a table of Markdown; "" if there are none."""
    from .escaping import cell

    if not changes:
        return ""
    rows = [
        f"| {cell(change['file'])} | {cell(change['key'])} | {cell(change['before'])}"
        f" | {cell(change['after'])}{' ⚠ asks for less' if looser(change) else ''} |"
        for change in changes
    ]
    return "\n".join(["| file | key | before | after |", "|---|---|---|---|", *rows])


def _git(*args: str) -> str | None:
    """Return what Git prints; None if it has no such commit or file."""
    result = process.run(["git", *args])
    return result.text if result.succeeded else None
