"""What is broken is refused in one sentence that names its place, and nothing is touched."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import yaml
from conftest import DOCUMENTS, Copy, Project, digest
from jsonschema import Draft202012Validator

pytestmark = pytest.mark.slow
Ran = Callable[[int, str], Copy]
Fresh = Callable[..., Copy]
Break = Callable[[Path], object]
SOURCE = "data/raw/Weine (Piemont).csv"
LEVELS = pytest.mark.parametrize("level", [0, 1])


@pytest.fixture
def wine(ran: Ran, tmp_path: Path) -> Copy:
    """A small project at level 0 that has run, for this test to break."""
    return ran(0, "multiclass").again(tmp_path / "wine")


def state(path: Path) -> dict[str, str]:
    """Every file of a project and its digest, but for what Python and DVC keep for themselves."""
    own = {"__pycache__", ".git", "tmp", "cache"}
    files = (
        p for p in path.rglob("*") if p.is_file() and not own & set(p.parts[len(path.parts) :])
    )
    return {str(p.relative_to(path)): digest(p) for p in files}


def refuses(copy: Copy, *args: str, names: list[str], exits: int = 2) -> None:
    """The command ends as said, in one line that names all of these, and changes nothing."""
    before = state(copy.path)
    done = copy.ml(*args)
    assert done.returncode == exits, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    errors = done.stderr.strip().splitlines()
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("ml: ")
    assert not [name for name in names if name not in errors[0]], errors[0]
    assert state(copy.path) == before


def edit(name: str, **changes: object) -> Break:
    """Change keys of a file of config/."""

    def change(project: Path) -> None:
        path = project / f"config/{name}.yaml"
        content = yaml.safe_load(path.read_text()) | changes
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    return change


def append(path: str, more: bytes) -> Break:
    return lambda project: (project / path).write_bytes((project / path).read_bytes() + more)


def write(path: str, content: bytes) -> Break:
    return lambda project: (project / path).write_bytes(content)


def remove(path: str) -> Break:
    return lambda project: (project / path).unlink()


def both(*breaks: Break) -> Break:
    return lambda project: [done(project) for done in breaks]


# --- config/ ---------------------------------------------------------------------------------

DATA, MODEL, GATE = (f"config/{name}.yaml" for name in ("data", "model", "gate"))
CONFIG: dict[str, tuple[Break, list[str]]] = {
    "broken YAML": (append(DATA, b"\n  - [never closed\n"), [DATA, "line"]),
    "no YAML at all": (write(GATE, b"\x00\xff\xfe"), [GATE]),
    "not UTF-8": (append(MODEL, "\n# é\n".encode("latin-1")), [MODEL]),
    "an empty file": (write(GATE, b""), [GATE]),
    "a list": (write(MODEL, b"- 1\n- 2\n"), [MODEL]),
    "an unknown key": (append(DATA, b"\ncolour: red\n"), [DATA, "colour"]),
    "an unknown key of a column": (
        edit("data", columns={"x": {"type": "number", "hue": 1}}),
        [DATA, "columns.x.hue"],
    ),
    "an absent key": (write(GATE, b"metric: log_loss\n"), [GATE, "thresholds"]),
    "a threshold as text": (
        edit("gate", thresholds={"log_loss": "low"}),
        [GATE, "thresholds.log_loss"],
    ),
    "a threshold as a boolean": (
        edit("gate", thresholds={"log_loss": True}),
        [GATE, "thresholds.log_loss"],
    ),
    "a threshold that is not a number": (
        edit("gate", thresholds={"log_loss": float("nan")}),
        [GATE, "thresholds.log_loss"],
    ),
    "a seed as text": (edit("model", seed="one"), [MODEL, "seed"]),
    "no metric of the task": (edit("gate", metric="roc_auc"), [GATE, "'roc_auc'", "multiclass"]),
    "a threshold of another task": (edit("gate", thresholds={"rmse": 1.0}), [GATE, "'rmse'"]),
    "an unknown key column": (edit("data", keys=["nope"]), [DATA, "'nope'"]),
    "an unknown time": (edit("data", time="nope"), [DATA, "'nope'"]),
    "an unknown target": (edit("data", target="nope"), [DATA, "'nope'"]),
    "an unknown group": (
        edit("data", split={"by": "group", "column": "nope"}),
        [DATA, "'nope'"],
    ),
    "a time that is not a time": (edit("data", time="hue"), [DATA, "time", "datetime"]),
    "a split without a column": (edit("data", split={"by": "time"}), [DATA, "split"]),
    "a holdout of everything": (
        edit("data", split={"by": "stratified", "holdout": 1.0}),
        [DATA, "split.holdout"],
    ),
    "classes of another task": (edit("data", classes=["a", "b"]), [DATA, "classes"]),
    "a missing file": (remove(GATE), [GATE, "missing"]),
    "a folder": (both(remove(GATE), lambda p: (p / GATE).mkdir()), [GATE]),
}


@pytest.mark.parametrize("case", CONFIG)
def test_config_is_refused_for(wine: Copy, case: str) -> None:
    wreck, names = CONFIG[case]
    wreck(wine.path)
    refuses(wine, "ingest", names=names)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"estimator": "woods"}, ["'woods'", "boosted"]),
        ({"params": {"depth": 3}}, ["depth"]),
        ({"params": {"max_iter": "many"}}, ["max_iter"]),
    ],
)
def test_an_estimator_that_cannot_be_made_is_refused(
    wine: Copy, changes: dict[str, Any], names: list[str]
) -> None:
    edit("model", **changes)(wine.path)
    refuses(wine, "train", names=[MODEL, *names])


# --- the source ------------------------------------------------------------------------------

GOOD = b"a;b;Rebsorte\n" + b"1;2;Barolo\n" * 99
PARQUET = "data/raw/x.parquet"


def as_parquet(cut: int) -> Break:
    def change(project: Path) -> None:
        path = project / PARQUET
        pl.DataFrame({"a": range(1000), "b": range(1000)}).write_parquet(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // cut])

    return change


FILES: dict[str, tuple[str, Break, list[str]]] = {
    "missing": (SOURCE, lambda p: (p / SOURCE).unlink(), ["missing"]),
    "empty": (SOURCE, write(SOURCE, b""), []),
    "a header only": (SOURCE, write(SOURCE, b"a;b;Rebsorte\n"), ["no rows"]),
    "a folder": ("data/raw", lambda p: None, ["not a file"]),
    "a row that is too long": (SOURCE, write(SOURCE, GOOD + b"1;2;Barolo;3\n"), ["line 101"]),
    "a row that is too short": (SOURCE, write(SOURCE, GOOD + b"1;2\n"), ["line 101"]),
    "a short row amid others": (SOURCE, write(SOURCE, GOOD + b"1\n" + GOOD[13:]), ["line 101"]),
    "invalid UTF-8": (SOURCE, write(SOURCE, GOOD + b"1;2;Barol\xf6\n"), ["UTF-8"]),
    "another encoding": (SOURCE, write(SOURCE, GOOD.decode().encode("utf-16")), ["UTF-8"]),
    "a quote that is not closed": (SOURCE, write(SOURCE, GOOD + b'1;2;"Barolo\n' * 3), ["line"]),
    "Parquet cut in half": (PARQUET, as_parquet(2), []),
    "Parquet that is text": (PARQUET, write(PARQUET, GOOD), []),
    "gzip cut in half": (
        "data/raw/x.csv.gz",
        write("data/raw/x.csv.gz", gzip.compress(os.urandom(9999).hex().encode())[:5000]),
        [],
    ),
    "gzip that is text": ("data/raw/x.csv.gz", write("data/raw/x.csv.gz", b"a;b\x00"), []),
}


@pytest.mark.parametrize("case", FILES)
def test_a_source_is_refused_for_being(wine: Copy, case: str) -> None:
    source, wreck, names = FILES[case]
    wreck(wine.path)
    edit("data", source=source)(wine.path)
    refuses(wine, "ingest", names=[source, *names])


@pytest.mark.parametrize("case", ["missing", "a row that is too short", "Parquet cut in half"])
def test_data_use_refuses_a_file_for_being(wine: Copy, case: str, tmp_path: Path) -> None:
    source, wreck, names = FILES[case]
    (tmp_path / "data/raw").mkdir(parents=True)
    shutil.copy(wine.path / SOURCE, tmp_path / SOURCE)
    wreck(tmp_path)
    arguments = ["data", "use", str(tmp_path / source), "--target", "Rebsorte", "--replace"]
    refuses(wine, *arguments, names=[Path(source).name, *names])


# --- between steps ---------------------------------------------------------------------------


@pytest.mark.parametrize("step", list(DOCUMENTS)[1:])
def test_a_step_before_its_predecessor_says_which_one_to_run(fresh: Fresh, step: str) -> None:
    before = {"validate": "ingest", "split": "ingest", "train": "split", "evaluate": "train"}
    before |= {"gate": "evaluate", "package": "train"}
    refuses(fresh(), step, names=["missing", f"`ml {before[step]}`"])


def truncate(path: str) -> Break:
    return lambda p: os.truncate(p / path, (p / path).stat().st_size // 2)


def replace(path: str, old: str, new: str) -> Break:
    def change(project: Path) -> None:
        text = (project / path).read_text("utf-8")
        assert old in text
        (project / path).write_text(text.replace(old, new, 1), "utf-8")

    return change


def swap(first: str, second: str) -> Break:
    def change(project: Path) -> None:
        (project / first).rename(project / "kept")
        (project / second).rename(project / first)
        (project / "kept").rename(project / second)

    return change


ROWS, TRAIN, HOLDOUT = (f"data/interim/{n}.parquet" for n in ("rows", "train", "holdout"))
SKOPS = "artifacts/model.skops"
TAMPERED: dict[str, tuple[str, Break, list[str]]] = {
    "rows cut in half": ("validate", truncate(ROWS), [ROWS, "`ml ingest`"]),
    "train and holdout swapped": ("train", swap(TRAIN, HOLDOUT), [TRAIN, "`ml split`"]),
    "rows in the place of train": (
        "train",
        lambda p: shutil.copy(p / ROWS, p / TRAIN),
        [TRAIN, "`ml split`"],
    ),
    "another model": ("gate", append(SKOPS, b"\0"), [SKOPS, "run `ml "]),
    "a source that grew": ("validate", append(SOURCE, b"\n"), [SOURCE, "`ml ingest`"]),
    "another contract": ("validate", append(DATA, b"# x\n"), [DATA, "`ml ingest`"]),
    "another gate": ("gate", append(GATE, b"# x\n"), [GATE, "`ml evaluate`"]),
    "other code of a model": ("evaluate", append(MODEL, b"# x\n"), [MODEL, "`ml train`"]),
    "metrics after the gate": (
        "package",
        replace("artifacts/metrics.json", '"rows": ', '"rows": 1'),
        ["artifacts/metrics.json"],
    ),
    "half a document": ("gate", truncate("artifacts/metrics.json"), ["artifacts/metrics.json"]),
    "an empty document": ("gate", write("artifacts/metrics.json", b"{}"), ["metrics.json"]),
    "a list for a document": ("split", write("artifacts/validation.json", b"[]"), ["validation"]),
    "a verdict of another word": (
        "package",
        replace("artifacts/gate.json", '"verdict": "passed"', '"verdict": "fine"'),
        ["artifacts/gate.json"],
    ),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_what_a_step_left_is_refused_when_it_is(wine: Copy, case: str) -> None:
    step, wreck, names = TAMPERED[case]
    wreck(wine.path)
    refuses(wine, step, names=names)


# --- asking the model ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows", ["{", "", "5", "null", '"text"', "[1, 2]", '[{"a": 1}, 2]', "[[1], [2]]", "[]", "{}"]
)
def test_rows_that_are_no_rows_are_refused(wine: Copy, rows: str) -> None:
    refuses(wine, "predict", "--json", rows, names=["--json"])


def test_predicting_without_a_package_says_to_run(fresh: Fresh) -> None:
    refuses(fresh(), "predict", "--json", '{"a": 1}', names=["artifacts/model", "`ml run`"])


def test_predicting_neither_rows_nor_a_file_says_so(wine: Copy) -> None:
    refuses(wine, "predict", names=["file", "--json"])
    refuses(wine, "predict", "nothing.csv", names=["nothing.csv", "missing"])


def test_rows_off_the_contract_are_refused_by_name(wine: Copy) -> None:
    rows = pl.read_csv(wine.path / SOURCE, separator=";", infer_schema=False)
    row = rows.drop("Rebsorte", "ash").with_columns(hue=pl.lit("deep"), flavanoids=pl.lit("-99"))
    done = wine.ml("predict", "--json", json.dumps(row.head(1).to_dicts()), exits=1)
    errors = done.stderr.splitlines()
    assert errors[0].startswith("ml: the rows break the contract")
    for name, rule in {"ash": "missing", "hue": "number", "flavanoids": "below"}.items():
        assert [line for line in errors if name in line and rule in line]


@pytest.mark.parametrize("name", ["model.skops", "contract.json"])
def test_a_damaged_package_is_refused(wine: Copy, name: str) -> None:
    truncate(f"artifacts/model/{name}")(wine.path)
    refuses(wine, "predict", SOURCE, names=["artifacts/model"])


# --- around a project ------------------------------------------------------------------------


def test_outside_of_a_project_ml_says_so_and_help_still_helps(
    project: Callable[[int], Project], tmp_path: Path
) -> None:
    done = project(0).ml("run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("ml: ")
    assert str(tmp_path) in done.stderr
    assert done.stderr.count("\n") == 1
    assert project(0).ml("--help", cwd=tmp_path).returncode == 0


def test_in_a_folder_of_a_project_ml_works_on_the_project(wine: Copy) -> None:
    done = wine.project.run("ml", "predict", f"../{SOURCE}", cwd=wine.path / "config")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 178


@pytest.mark.parametrize("args", [["fly"], ["data", "use"], ["run", "--colour", "red"]])
def test_bad_usage_exits_2_without_a_traceback(wine: Copy, args: list[str]) -> None:
    done = wine.ml(*args, exits=2)
    assert "Traceback" not in done.stderr


@pytest.fixture
def disk(wine: Copy) -> Iterator[Path]:
    """A real disk of 16 kB in the place of the folder of rows."""
    folder = wine.path / "data/interim"
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root and a system that lets it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_sentence_and_leaves_no_half_of_a_file(wine: Copy, disk: Path) -> None:
    (disk / "full").write_bytes(b"x" * 12_288)
    refuses(wine, "ingest", names=["data/interim"])


# --- refusals --------------------------------------------------------------------------------


@LEVELS
def test_an_impossible_threshold_refuses_the_model_and_keeps_the_last_package(
    ran: Ran, tmp_path: Path, level: int
) -> None:
    copy = ran(level, "multiclass").again(tmp_path / "copy")
    package = state(copy.path / "artifacts/model")
    edit("gate", thresholds={"log_loss": 1e-9})(copy.path)
    done = copy.ml("run", exits=1)
    assert "log_loss" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    gate = copy.read("gate")
    assert gate["verdict"] == "refused"
    assert [c["check"] for c in gate["checks"] if c["verdict"] == "refused"] == ["log_loss"]
    assert "refused, 1 of" in (copy.path / "artifacts/report.html").read_text()
    assert copy.ml("package").returncode == 1
    assert state(copy.path / "artifacts/model") == package
    assert copy.ml("predict", SOURCE, exits=0).stdout
    assert copy.ml("run").returncode == 1  # it does not get through the second time


@LEVELS
def test_refused_rows_are_named_with_their_counts(ran: Ran, tmp_path: Path, level: int) -> None:
    copy = ran(level, "multiclass").again(tmp_path / "copy")
    path = copy.path / SOURCE
    rows = pl.read_csv(path, separator=";", infer_schema=False)
    odd = pl.int_range(pl.len()) < 7
    rows.with_columns(
        hue=pl.when(odd).then(pl.lit("deep")).otherwise("hue"),
        Rebsorte=pl.when(odd).then(pl.lit("Merlot")).otherwise("Rebsorte"),
        proline=pl.when(odd).then(pl.lit("-5")).otherwise("proline"),
    ).drop("ash").write_csv(path, separator=";")
    stderr = copy.ml("run", exits=1).stderr
    document = copy.read("validate")
    assert document["verdict"] == "refused"
    failures = {f["column"]: (f["rule"], f["count"]) for f in document["failures"]}
    assert failures["hue"][1] == 7
    assert "number" in failures["hue"][0]
    assert failures["Rebsorte"] == ("new category", 7)
    assert failures["proline"] == ("below 0", 7)
    assert failures["ash"] == ("missing column", 1)
    for name in failures:
        assert [line for line in stderr.splitlines() if name in line]
    refused = {name for name, verdict in document["columns"].items() if verdict == "refused"}
    assert refused == set(failures)
    assert copy.ml("split").returncode in (1, 2)


@LEVELS
@pytest.mark.parametrize("case", ["broken YAML", "a missing source"])
def test_a_run_exits_as_the_step_that_ended_it(
    ran: Ran, tmp_path: Path, level: int, case: str
) -> None:
    copy = ran(level, "multiclass").again(tmp_path / "copy")
    if case == "broken YAML":
        CONFIG[case][0](copy.path)
    else:
        (copy.path / SOURCE).unlink()
    before = state(copy.path)
    done = copy.ml("run", exits=2)
    assert "Traceback" not in done.stdout + done.stderr
    assert (DATA if case == "broken YAML" else SOURCE) in done.stderr
    assert state(copy.path) == before


# --- killed ----------------------------------------------------------------------------------

# Kills its process just before its nth change to the project's files, and lists them.
KILLER = """
import os, signal, sys
left = int(os.environ["KILL_AT"])
changes = open(os.environ["CHANGES"], "w", buffering=1)
def hook(event, args):
    global left
    name = str(args[0]) if args else ""
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") or writes:
        if "artifacts" in name or name.startswith("."):
            left -= 1
            print(event, file=changes)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from rung_runtime.cli import main
sys.argv[1:] = ["package"]
main()
"""


def documents_are_whole(copy: Copy) -> None:
    schema = json.loads((copy.path / "src/rung_runtime/documents.schema.json").read_text())
    for step, name in DOCUMENTS.items():
        if (copy.path / name).exists():
            Draft202012Validator({**schema, "$ref": f"#/$defs/{step}"}).validate(copy.read(step))


def package_is_whole(copy: Copy) -> None:
    model = copy.path / "artifacts/model"
    files = {p.relative_to(model).as_posix() for p in model.rglob("*") if p.is_file()}
    assert files == {"manifest.json", *copy.read("package")["files"]}
    lineage = json.loads((model / "lineage.json").read_text())
    assert lineage["train"]["outputs"][SKOPS] == digest(model / "model.skops")


def test_packaging_killed_at_any_moment_leaves_a_whole_package(
    ran: Ran, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    copy = ran(0, "regression").again(tmp_path / "copy")

    def killed_at(moment: int) -> subprocess.CompletedProcess[str]:
        names = f"KILL_AT='{moment}', CHANGES={str(tmp_path / 'changes')!r}"
        code = f"import os; os.environ.update({names})\n{KILLER}"
        return copy.project.python(code, "ml", cwd=copy.path)

    assert killed_at(0).returncode == 0  # never
    changes = (tmp_path / "changes").read_text().split()
    # Each moment at which something is moved or taken away, and some at which it is written.
    moved = [n for n, change in enumerate(changes, 1) if change not in ("open", "os.mkdir")]
    nightly = request.config.getoption("tier") == "nightly"
    written = range(1, len(changes), 1 if nightly else 6)
    survived = 0
    for moment in [*sorted({1, 2, 3, *moved, *written}), *range(len(changes), 99)]:
        done = killed_at(moment)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        documents_are_whole(copy)
        rows = next((copy.path / "data/raw").glob("diabetes*"))
        if moment % 4 == 0 or not (copy.path / "artifacts/model").exists():
            copy.ml("predict", str(rows), exits=0)
            package_is_whole(copy)
        survived += done.returncode == 0
        if survived:
            break
    assert survived, "never came to its end: the moments do not cover it"
    package_is_whole(copy)
    assert not list((copy.path / "artifacts").glob(".*"))


@LEVELS
def test_a_killed_run_leaves_whole_documents_and_the_next_one_goes_on(
    ran: Ran, tmp_path: Path, level: int, request: pytest.FixtureRequest
) -> None:
    copy = ran(level, "multiclass").again(tmp_path / "copy")
    nightly = request.config.getoption("tier") == "nightly"
    kills = {0: 5 if nightly else 2, 1: 2 if nightly else 1}
    seed = random.randrange(10**6)
    print("seed", seed)
    r = random.Random(seed)
    took = 8 if level == 0 else 20
    for _ in range(kills[level]):
        edit("model", seed=r.randrange(10**6))(copy.path)
        ends_early(copy, r.uniform(0.3, took))
        documents_are_whole(copy)
        copy.ml("predict", SOURCE, exits=0)
        package_is_whole(copy)
    if level:  # as DVC leaves it that is killed while it writes it
        (copy.path / ".dvc/tmp/rwlock").write_bytes(b"")
    copy.ml("run", exits=0)
    documents_are_whole(copy)
    package_is_whole(copy)
    assert digest(copy.path / SKOPS) == copy.read("package")["model_digest"]


def ends_early(copy: Copy, after: float) -> None:
    """Start a run, and kill it and all that it started."""
    program = str(copy.project.path / ".venv/bin/ml")
    path = f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.Popen(
        [program, "run"],
        cwd=copy.path,
        env={"PATH": path, "HOME": str(copy.path), "PYTHONPATH": str(copy.path / "src")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(after)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    psutil.wait_procs(members(run.pid))  # DVC takes one that nobody has reaped for one that runs


def members(group: int) -> list[psutil.Process]:
    """Find the processes of a group."""
    processes = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group:
                processes.append(process)
    return processes
