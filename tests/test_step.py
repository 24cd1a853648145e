"""`ml step`: nodes that share no folder leave each other what they need, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Render

Import = Callable[[str], ModuleType]
ROWS = "data/interim/rows.parquet"
IDENTITY = "data/interim/identity.parquet"
SOURCE = "data/raw/flights.csv"
INGESTED = {ROWS: "rows", IDENTITY: "keys", "artifacts/ingest.json": "{}"}
STAGES: dict[str, Any] = {}  # of dvc.yaml
VALIDATED = {"artifacts/validation.json": "{}"}


@dataclass
class Nodes:
    """Nodes that have nothing in common but the code of a project and a place for what they leave.

    What a node does is not in question here: it writes files.
    """

    code: Path
    top: Path
    module: Import
    count: int = 0
    seen: dict[str, str] = field(default_factory=dict)  # by a node: its files when it ran

    @property
    def state(self) -> Path:
        return self.top / "state"

    def enter(self, *, with_source: bool = True) -> Path:
        """Go to a new folder with the code alone."""
        self.count += 1
        folder = self.top / f"node-{os.getpid()}-{self.count}"
        without = shutil.ignore_patterns() if with_source else shutil.ignore_patterns("*.csv")
        shutil.copytree(self.code, folder, ignore=without)
        os.chdir(folder)
        return folder

    def run(
        self,
        name: str,
        *after: str,
        makes: Mapping[str, str],
        out: str = "",
        refuses: str = "",
        **options: bool,
    ) -> str:
        """Perform a step in a folder of its own."""
        folder = self.enter(**options)

        def run(name: str) -> None:
            for top in ("data/interim", "artifacts"):
                files = [file for file in (folder / top).rglob("*") if file.is_file()]
                self.seen |= {str(f.relative_to(folder)): f.read_text() for f in files}
            for path, text in makes.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text)
            if refuses:
                raise self.module("exceptions").RefusedError(refuses)

        self.seen.clear()
        inputs = [str(self.state / place) for place in after]
        output = str(self.state / (out or name))
        perform_step = self.module("remote_step").perform_step
        outcome: str = perform_step(name, inputs, output, folder, run)
        return outcome

    def manifest(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.state / f"{name}.json").read_text())
        return content

    def stored(self, name: str, path: str) -> Path:
        """Return where the content of a file is."""
        digest: str = self.manifest(name)["files"][path]["digest"]
        return self.state / "objects" / digest.removeprefix("sha256:")


@pytest.fixture
def nodes(render: Render, module: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    module("cli.app")  # here, as it looks at the folder for which commands there are
    code = tmp_path / "code"
    for name in ("config", ".dvc", "data"):
        shutil.copytree(render(level=1) / name, code / name)
    for name in ("dvc.yaml", "pyproject.toml"):
        shutil.copy(render(level=1) / name, code / name)
    monkeypatch.setenv("ML_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.chdir(code)
    if not STAGES:  # DVC takes a while to read them
        STAGES.update(module("adapters.pipeline_dvc").read_stages())
    monkeypatch.setattr(module("adapters.pipeline_dvc"), "read_stages", lambda: STAGES)
    return Nodes(code, tmp_path, module)


def test_a_step_has_what_it_reads_and_leaves_what_later_ones_read(nodes: Nodes) -> None:
    outcome = nodes.run("ingest", makes=INGESTED)
    assert outcome == f"ingest: {nodes.state}/ingest has 4 files, 4 of them new"
    nodes.run("validate", "ingest", makes=VALIDATED)
    assert nodes.seen == {ROWS: "rows", "artifacts/ingest.json": "{}"}  # and not the keys
    manifest = nodes.manifest("validate")
    assert manifest["files"].keys() == {*INGESTED, *VALIDATED, SOURCE}
    assert manifest["inputs"].keys() == {ROWS}
    assert {file["step"] for file in manifest["files"].values()} == {"ingest", "validate"}
    for path, file in manifest["files"].items():
        content = nodes.stored("validate", path).read_bytes()
        assert f"sha256:{sha256(content).hexdigest()}" == file["digest"]
        assert len(content) == file["size"]


def test_a_step_that_is_repeated_finds_what_it_left_and_leaves_it_as_it_is(nodes: Nodes) -> None:
    nodes.run("ingest", makes=INGESTED)
    assert nodes.seen == {}
    before = {file: file.stat().st_mtime_ns for file in nodes.state.rglob("*") if file.is_file()}
    outcome = nodes.run("ingest", makes={})
    assert nodes.seen == INGESTED
    assert outcome.endswith("4 files, 0 of them new")
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_a_step_whose_inputs_changed_starts_from_nothing(nodes: Nodes) -> None:
    nodes.run("ingest", makes=INGESTED)
    nodes.run("validate", "ingest", makes=VALIDATED)
    nodes.run("ingest", makes=INGESTED | {ROWS: "other rows"})
    nodes.run("validate", "ingest", makes={"artifacts/validation.json": "{1}"})
    assert nodes.seen == {ROWS: "other rows", "artifacts/ingest.json": "{}"}
    assert nodes.stored("validate", "artifacts/validation.json").read_text() == "{1}"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: file.unlink(), "is missing: run `ml step ingest` again"),
        (lambda file: file.write_text("r0ws"), "is not what `ml step ingest` wrote"),
        (lambda file: file.write_text("rows" * 9), "is not what `ml step ingest` wrote"),
        (lambda file: file.write_text("row"), "is not what `ml step ingest` wrote"),
    ],
)
def test_a_file_of_an_earlier_step_that_is_not_what_it_left_is_named(
    nodes: Nodes, damage: Callable[[Path], object], reason: str
) -> None:
    nodes.run("ingest", makes=INGESTED)
    damage(nodes.stored("ingest", ROWS))
    with pytest.raises(nodes.module("exceptions").UsageError, match=f"{ROWS}.*{reason}"):
        nodes.run("validate", "ingest", makes=VALIDATED)
    assert nodes.seen == {}  # it did not run
    assert not (Path.cwd() / ROWS).exists()
    assert not (nodes.state / "validate.json").exists()
    nodes.run("ingest", makes=INGESTED)  # as the message says
    nodes.run("validate", "ingest", makes=VALIDATED)


def test_a_step_whose_own_output_is_damaged_runs_again_and_repairs_it(
    nodes: Nodes, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes.run("ingest", makes=INGESTED)
    nodes.stored("ingest", ROWS).write_text("xxxx")
    outcome = nodes.run("ingest", makes=INGESTED)
    assert "ingest runs again, as its last output cannot be used: " in capsys.readouterr().err
    assert outcome.endswith("4 files, 4 of them new")
    assert nodes.stored("ingest", ROWS).read_text() == "rows"


HOSTILE = [
    "../evil",
    "/tmp/evil",
    "data/interim/../../../evil",
    "data/interim/rows.parquet/../../../../evil",
    "artifacts/model/../../evil",
    "artifacts/model//evil",
    "./artifacts/model/evil",
    "artifacts/model\\..\\evil",
    "artifacts/model/C:evil",
    "artifacts/model/a\nb",
    "artifacts/model/\u202egnp.x",
    "config/gate.yaml",
    "src/flight_delays/problem/model.py",
    ".git/hooks/post-checkout",
    "dvc.yaml",
    "artifacts/modelx",
    "artifacts",
    "",
    ".",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_manifest_leads_to_no_file_but_those_that_steps_make(nodes: Nodes, path: str) -> None:
    nodes.run("ingest", makes=INGESTED)
    manifest = nodes.manifest("ingest")
    manifest["files"][path] = manifest["files"][ROWS]
    (nodes.state / "ingest.json").write_text(json.dumps(manifest))
    before = {*nodes.top.rglob("*")}
    with pytest.raises(
        nodes.module("exceptions").UsageError, match="which no step of this project makes"
    ):
        nodes.run("validate", "ingest", makes=VALIDATED)
    new = {*nodes.top.rglob("*")} - before
    assert not [file for file in new if file.name in ("rows.parquet", "evil")]
    assert (Path.cwd() / "config/gate.yaml").read_bytes() == (
        nodes.code / "config/gate.yaml"
    ).read_bytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Invalid JSON"),
        ("[]", "should be an object"),
        ("{}", "step: Field required"),
        ('{"step": 1}', "step: Input should be a valid string"),
        (None, "Extra inputs"),
        ("sha256:../../../etc/passwd", "digest: String should match"),
    ],
)
def test_what_is_not_a_manifest_is_named(nodes: Nodes, content: str | None, reason: str) -> None:
    nodes.run("ingest", makes=INGESTED)
    file = nodes.state / "ingest.json"
    manifest = nodes.manifest("ingest")
    if content is None:
        file.write_text(json.dumps(manifest | {"run": "rm -rf /"}))
    elif content.startswith("sha256"):
        manifest["files"][ROWS]["digest"] = content
        file.write_text(json.dumps(manifest))
    else:
        file.write_text(content)
    usage_error = nodes.module("exceptions").UsageError
    with pytest.raises(usage_error, match=f"ingest.json is not a manifest .*{reason}"):
        nodes.run("validate", "ingest", makes=VALIDATED)
    nodes.run("ingest", makes=INGESTED)  # which is not kept from running by its last output
    nodes.run("validate", "ingest", makes=VALIDATED)


def test_a_manifest_as_large_as_a_disk_is_not_read(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.run("ingest", makes=INGESTED)
    with (nodes.state / "ingest.json").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(nodes.module("exceptions").UsageError, match="too large to be a manifest"):
        nodes.run("validate", "ingest", makes=VALIDATED)


@pytest.mark.parametrize("to", ["outside", "/etc"])
def test_a_link_that_leads_out_of_the_project_is_neither_read_nor_written_through(
    nodes: Nodes, to: str
) -> None:
    usage_error = nodes.module("exceptions").UsageError
    transfer = nodes.module("remote_step.transfer")
    snapshot = nodes.module("remote_step.snapshot")
    nodes.run("ingest", makes=INGESTED)
    place = snapshot.open_place(str(nodes.state / "ingest"), Path.cwd())
    stored = snapshot.read_manifest(place).files[ROWS]
    folder = nodes.enter()
    outside = nodes.top / to
    outside.mkdir(exist_ok=True)
    (folder / "data/interim").symlink_to(outside)
    with pytest.raises(usage_error, match="data/interim is a link that leads out of the project"):
        transfer.download(ROWS, place, stored)
    assert not (outside / "rows.parquet").exists()
    (folder / "artifacts").mkdir()
    (folder / "artifacts/ingest.json").symlink_to("/etc/hostname")
    with pytest.raises(usage_error, match=r"ingest\.json is a link that leads out of the project"):
        transfer.upload("artifacts/ingest.json", place, "ingest")
    # One that is replaced is not followed, wherever it leads.
    (folder / "artifacts/gate.json").symlink_to(nodes.top / "victim")
    (nodes.top / "victim").write_text("mine")
    transfer.download("artifacts/gate.json", place, stored)
    assert (nodes.top / "victim").read_text() == "mine"
    assert (folder / "artifacts/gate.json").read_text() == "rows"


def test_only_files_are_carried(nodes: Nodes) -> None:
    files_of = nodes.module("remote_step.transfer").files_of
    folder = nodes.enter() / "artifacts/model"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub/a").write_text("")
    assert files_of("artifacts/model") == ["artifacts/model/sub/a"]
    os.mkfifo(folder / "pipe")  # to read it would wait for ever
    with pytest.raises(nodes.module("exceptions").UsageError, match="pipe is not a file"):
        files_of("artifacts/model")
    (folder / "pipe").unlink()
    (folder / "link").symlink_to("/etc")
    with pytest.raises(nodes.module("exceptions").UsageError, match="link is not a file"):
        files_of("artifacts/model")


def test_a_folder_has_the_files_of_its_snapshot_and_no_others(nodes: Nodes) -> None:
    names = [f"artifacts/model/{name}" for name in ("a", "sub/b")]
    nodes.run("package", makes=dict.fromkeys(names, "1"))
    folder = nodes.enter()
    (folder / "artifacts/model").mkdir(parents=True)
    (folder / "artifacts/model/stale").write_text("of another model")
    perform_step = nodes.module("remote_step").perform_step
    place = str(nodes.state / "package")
    perform_step("register", [place], str(nodes.state / "register"), folder, lambda name: None)
    left = [file for file in (folder / "artifacts/model").rglob("*") if file.is_file()]
    assert sorted(str(file.relative_to(folder)) for file in left) == names


# --- killed, at once, refused --------------------------------------------------------------------


def fork(action: Callable[[], object]) -> int:
    """Do something in a process of its own; return the number of the process."""
    child = os.fork()
    if not child:
        code = 3
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return child


@pytest.mark.slow  # processes start
def test_a_step_that_is_killed_leaves_what_was_there_and_the_next_one_completes_it(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_class = nodes.module("storage").Folder
    upload = folder_class.upload
    whole = nodes.module("remote_step.snapshot").Manifest.model_validate_json
    for first in (True, False):
        for number in range(20):
            calls = 0

            def dying(self: Any, name: str, pieces: Any, size: int) -> None:
                nonlocal calls
                if calls == number:  # noqa: B023
                    os.kill(os.getpid(), signal.SIGKILL)
                calls += 1
                upload(self, name, pieces, size)

            shutil.rmtree(nodes.state, ignore_errors=True)
            if not first:
                nodes.run("ingest", makes=INGESTED)
            with monkeypatch.context() as patch:
                patch.setattr(folder_class, "upload", dying)
                changed = INGESTED | {ROWS: "more rows"}
                child = fork(lambda: nodes.run("ingest", makes=changed))  # noqa: B023
            status = os.waitpid(child, 0)[1]
            if not os.WIFSIGNALED(status):
                assert status == 0
                break
            manifest = nodes.state / "ingest.json"
            if first:
                assert not manifest.exists()
            else:
                assert nodes.stored("ingest", ROWS).read_text() == "rows"
                for path in whole(manifest.read_text()).files:
                    assert nodes.stored("ingest", path).exists()
            nodes.run("ingest", makes=changed)
            assert nodes.stored("ingest", ROWS).read_text() == "more rows"
        assert number >= (5 if first else 2)  # files, and the manifest at the end


def test_of_two_that_write_at_once_each_reader_sees_one_as_a_whole(nodes: Nodes) -> None:
    model = [f"artifacts/model/{name}" for name in "abcdef"]
    nodes.run("package", makes=dict.fromkeys(model, "0"))

    def write(text: str) -> None:
        nodes.top = nodes.top / text  # for its folders; the state is the same
        nodes.top.mkdir()
        (nodes.top / "state").symlink_to("../state")
        for turn in range(6):
            nodes.run("package", makes=dict.fromkeys(model, f"{text} {turn}"))

    writers = {fork(lambda text=text: write(text)) for text in ("one", "two")}  # type: ignore[misc]
    reads = 0
    while writers:
        done, status = os.waitpid(-1, os.WNOHANG)
        if done in writers:
            assert status == 0
            writers.remove(done)
        files = nodes.manifest("package")["files"]
        digests = [file["digest"].removeprefix("sha256:") for file in files.values()]
        contents = {(nodes.state / "objects" / name).read_text() for name in digests}
        assert len(contents) == 1, contents
        reads += 1
    assert reads > 3
    assert not list(nodes.state.rglob("*.new"))


def test_snapshots_of_two_runs_are_not_mixed(nodes: Nodes) -> None:
    nodes.run("ingest", makes=INGESTED)
    nodes.run("validate", "ingest", makes=VALIDATED)
    nodes.run("ingest", makes=INGESTED | {ROWS: "of another run"}, out="other")
    nodes.run("split", "ingest", "validate", makes={})
    with pytest.raises(
        nodes.module("exceptions").UsageError,
        match=f"{ROWS} differs between .*/other and .*/validate, as if two runs",
    ):
        nodes.run("split", "other", "validate", makes={})


def test_what_comes_from_another_folder_is_copied_and_checked(nodes: Nodes) -> None:
    nodes.run("ingest", makes=INGESTED)
    elsewhere = "../elsewhere/validate"
    nodes.run("validate", "ingest", makes=VALIDATED, out=elsewhere)
    shutil.rmtree(nodes.state / "objects")
    nodes.run("split", elsewhere, makes={}, out="../elsewhere/split")
    assert nodes.seen[IDENTITY] == "keys"


def test_a_refusal_is_kept_with_its_evidence_and_nothing_is_built_on_it(nodes: Nodes) -> None:
    refused_error = nodes.module("exceptions").RefusedError
    nodes.run("ingest", makes=INGESTED)
    with pytest.raises(refused_error, match="a bad column"):
        nodes.run(
            "validate",
            "ingest",
            makes={"artifacts/validation.json": "{refused}"},
            refuses="a bad column",
        )
    manifest = nodes.manifest("validate")
    assert (manifest["outcome"], manifest["reason"]) == ("refused", "a bad column")
    assert nodes.stored("validate", "artifacts/validation.json").read_text() == "{refused}"
    with pytest.raises(refused_error, match="validate: validate refused: a bad column"):
        nodes.run("split", "validate", makes={})
    nodes.run("validate", "ingest", makes=VALIDATED)
    nodes.run("split", "validate", makes={})


# --- the source, and what must outlive a container -----------------------------------------------


def test_the_source_can_come_from_the_state_and_is_not_taken_for_another_one(nodes: Nodes) -> None:
    nodes.run("source", makes={})
    nodes.run("ingest", "source", makes=INGESTED, with_source=False)
    assert (Path.cwd() / SOURCE).read_bytes() == (nodes.code / SOURCE).read_bytes()
    (nodes.code / SOURCE).write_text("other rows")
    with pytest.raises(
        nodes.module("exceptions").UsageError,
        match=f"{SOURCE} is not the one that .*/source was made from: run `ml step source`",
    ):
        nodes.run("ingest", "source", makes=INGESTED)
    assert (Path.cwd() / SOURCE).read_text() == "other rows"


def test_a_source_that_changed_is_read_and_never_replaced_by_an_older_one(nodes: Nodes) -> None:
    for name in ("ingest", "source"):
        for text in ("old rows", "new rows"):
            (nodes.code / SOURCE).write_text(text)
            nodes.run(name, makes=INGESTED if name == "ingest" else {})
            assert (Path.cwd() / SOURCE).read_text() == text
            assert nodes.stored(name, SOURCE).read_text() == text
        nodes.stored(name, SOURCE).write_text("damaged")
        nodes.run(name, makes=INGESTED if name == "ingest" else {})
        assert nodes.stored(name, SOURCE).read_text() == "new rows"


@pytest.mark.parametrize(
    ("name", "registry", "reason"),
    [
        ("compare", "registry", "the registry is the folder registry here"),
        ("ingest", "", "the registry is the folder registry here"),
        ("deploy", None, "the service would end with this container"),
        ("retrain", None, "the service would end with this container"),
        ("monitor", None, "the prediction log is the folder predictions here"),
    ],
)
def test_what_would_end_with_the_container_is_refused_before_anything_runs(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, name: str, registry: str | None, reason: str
) -> None:
    if registry is not None:
        monkeypatch.setenv("ML_REGISTRY", registry)
    with pytest.raises(nodes.module("exceptions").UsageError, match=f"ml step {name}: {reason}"):
        nodes.run(name, makes={})
    assert not nodes.state.exists()


def test_a_training_that_an_alarm_starts_ends_where_the_graph_ends(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    ends: list[str] = []
    monitoring = nodes.module("cli.monitoring")
    monkeypatch.setattr(monitoring, "retrain", lambda *, last: ends.append(last))
    monkeypatch.setattr(nodes.module("cli.step"), "START", nodes.enter())
    app = nodes.module("cli.app").app
    arguments = ["step", "retrain", "--out", str(nodes.state / "retrain")]
    done = CliRunner().invoke(app, [*arguments, "--last", "register"])
    assert done.exit_code == 0, done.output
    refused = CliRunner().invoke(app, arguments)  # it would deploy to this machine
    assert "the service would end with this container" in str(refused.exception)
    assert ends == ["register"]
    other = CliRunner().invoke(app, ["step", "train", "--out", "x", "--last", "register"])
    assert "--last is for the step retrain" in str(other.exception)


def test_a_step_deploys_to_the_cluster_and_what_an_alarm_trains_waits_for_an_image(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    file = nodes.code / "pyproject.toml"
    file.write_text(file.read_text().replace('deployment = "local"', 'deployment = "kubernetes"'))
    targets: list[str] = []
    delivery = nodes.module("cli.delivery")
    monkeypatch.setattr(delivery, "deploy", lambda *, target: targets.append(target))
    monkeypatch.setattr(nodes.module("cli.step"), "START", nodes.enter())
    app = nodes.module("cli.app").app
    done = CliRunner().invoke(app, ["step", "deploy", "--out", str(nodes.state / "deploy")])
    assert done.exit_code == 0, done.output
    assert targets == ["production"]
    usage_error = nodes.module("exceptions").UsageError
    with pytest.raises(usage_error, match="a cluster needs an image of the version that it trains"):
        nodes.run("retrain", makes={})


def test_a_registry_of_mlflow_has_to_be_a_server(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = nodes.code / "pyproject.toml"
    file.write_text(file.read_text().replace('registry = "oci"', 'registry = "mlflow"'))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(nodes.module("exceptions").UsageError, match="set MLFLOW_TRACKING_URI"):
        nodes.run("ingest", makes=INGESTED)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracking.test")
    nodes.run("ingest", makes=INGESTED)


# --- places, and what logs in ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("gopher://x/train", "gopher:// is not a kind of place"),
        ("s3://bucket", "names no place in a bucket"),
        ("s3:///train", "names no place in a bucket"),
        ("s3://bucket/../other/train", "leave out empty parts"),
        ("s3://bucket//train", "leave out empty parts"),
        ("s3://bucket/state/objects", "its last part names the place"),
        ("s3://bucket/state/tra in", "its last part names the place"),
        ("file://host/state/train", "is on another machine"),
        ("s3://[x/train", "is not a URL"),
    ],
)
def test_a_place_that_cannot_be_one_is_named(module: Import, uri: str, reason: str) -> None:
    with pytest.raises(module("exceptions").UsageError, match=reason):
        module("remote_step.snapshot").open_place(uri, Path.cwd())


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA123:hunter2hunter2@bucket/train",
        "az://container/train?sv=2024&sig=hunter2hunter2",
        "gs://bucket/train#hunter2hunter2",
    ],
)
def test_a_login_in_a_uri_is_refused_and_not_repeated(module: Import, uri: str) -> None:
    with pytest.raises(module("exceptions").UsageError, match="a login does not belong") as caught:
        module("remote_step.snapshot").open_place(uri, Path.cwd())
    assert "hunter2" not in str(caught.value)


def test_a_message_of_an_object_store_has_nothing_that_logs_in(
    module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = module("storage")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=swordfish")
    text = (
        "denied https://me:pass@host/b/k?X-Amz-Signature=abc and hunter2hunter2, sv=1&sig=swordfish"
    )
    assert storage.without_secrets(text) == "denied https://host/b/k and …, …"
    with pytest.raises(module("exceptions").UsageError) as caught, storage._reached("s3://b/k"):
        raise ValueError("AccessDenied for hunter2hunter2\nAuthorization: AWS4 …")
    assert str(caught.value) == "s3://b/k cannot be used: AccessDenied for …"


def test_paths_and_urls_of_files_are_places(module: Import, tmp_path: Path) -> None:
    open_place = module("remote_step.snapshot").open_place
    for uri in ("a b/train", f"{tmp_path}/a b/train", f"file://{tmp_path}/a%20b/train/"):
        place = open_place(uri, tmp_path)
        assert (place.folder, place.name) == (f"{tmp_path}/a b", "train")


def test_a_step_says_what_it_lacks(nodes: Nodes) -> None:
    usage_error = nodes.module("exceptions").UsageError
    with pytest.raises(usage_error, match="there is no step trian: use one of ingest, validate, "):
        nodes.run("trian", makes={})
    with pytest.raises(usage_error, match="ingest has no manifest: the step that writes it has"):
        nodes.run("validate", "ingest", makes={})
    nodes.run("ingest", makes=INGESTED)
    with pytest.raises(usage_error, match="cannot be both --in and --out"):
        nodes.run("validate", "ingest", makes={}, out="ingest")


@pytest.mark.parametrize("lock", [{}, {"cmd": 5}, {"cmd": "ml ingest", "outs": "x"}])
def test_a_step_whose_entry_of_dvcs_lock_is_damaged_runs_again(
    nodes: Nodes, capsys: pytest.CaptureFixture[str], lock: dict[str, Any]
) -> None:
    nodes.run("ingest", makes=INGESTED)
    file = nodes.state / "ingest.json"
    file.write_text(json.dumps(nodes.manifest("ingest") | {"lock": lock}))
    nodes.run("ingest", makes=INGESTED)
    assert "ingest runs again" in (message := capsys.readouterr().err)
    assert "its entry of dvc.lock cannot be used" in message
    assert nodes.manifest("ingest")["lock"] is None  # as no DVC ran here


def test_a_source_that_is_missing_is_not_brought(nodes: Nodes) -> None:
    (nodes.code / "data/raw/flights.csv").unlink()
    with pytest.raises(nodes.module("exceptions").UsageError, match=r"flights.csv is missing: put"):
        nodes.run("source", makes={})
    assert not nodes.state.exists()


def test_a_file_that_changes_while_it_is_uploaded_is_not_kept(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = nodes.module("remote_step.transfer")
    read = transfer._read
    monkeypatch.setattr(transfer, "_read", lambda file: iter([b"other"]))
    with pytest.raises(nodes.module("exceptions").UsageError, match="changed while it was upload"):
        nodes.run("ingest", makes=INGESTED)
    assert not (nodes.state / "ingest.json").exists()
    assert not list((nodes.state / "objects").iterdir())
    monkeypatch.setattr(transfer, "_read", read)
    nodes.run("ingest", makes=INGESTED)
    content = nodes.stored("ingest", ROWS)
    monkeypatch.setattr(transfer, "_read", lambda file: iter([b"ro", b"w!"]))
    with pytest.raises(nodes.module("exceptions").UsageError, match="changed while it was upload"):
        nodes.run("ingest", makes=INGESTED, out="other")
    assert content.read_text() == "rows"  # which the first snapshot has


# --- attempts ------------------------------------------------------------------------------------


@dataclass
class Attempts:
    """A command that is tried, which a small program stands in for."""

    module: ModuleType
    folder: Path

    def run(
        self, program: str, retries: int = 2, timeout: float = 0, delay: float = 0
    ) -> tuple[int, int]:
        """Return the exit code, and how often it was tried."""
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        self.module.START = (  # type: ignore[attr-defined]
            "import os, signal, sys, time\nfrom pathlib import Path\n"
            "with open('calls', 'a') as file: file.write('x')\n"
            f"count = len(Path('calls').read_text())\n{program}"
        )
        code = self.module.run_attempts("train", ["step"], self.folder, retries, delay, timeout)
        return code, len(calls.read_text())


@pytest.fixture
def attempts(module: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attempts]:
    attempts = module("remote_step.attempts")
    monkeypatch.setattr(attempts, "START", attempts.START)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Attempts(attempts, tmp_path)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("sys.exit(0)", (0, 1)),
        ("sys.exit(1)", (1, 1)),
        ("sys.exit(2)", (2, 1)),
        ("sys.exit(70)", (70, 3)),
        ("os.kill(os.getpid(), signal.SIGKILL)", (137, 3)),
        ("sys.exit(0 if count == 2 else 70)", (0, 2)),
        ("sys.exit(1 if count == 2 else 70)", (1, 2)),
    ],
)
def test_a_refusal_is_final_and_what_fails_otherwise_is_tried_again(
    attempts: Attempts, program: str, expected: tuple[int, int]
) -> None:
    assert attempts.run(program) == expected


def test_an_attempt_that_takes_too_long_ends_with_all_that_it_started(
    attempts: Attempts, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts.module, "GRACE_SECONDS", 0.2)
    program = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "Path('child').write_text(str(child.pid))\n"
        "time.sleep(600)"
    )
    assert attempts.run(program, retries=0, timeout=1 / 60) == (124, 1)
    assert "train failed: it did not end within" in capsys.readouterr().err
    child = Path(f"/proc/{(attempts.folder / 'child').read_text()}/stat")
    for _ in range(100):  # until whoever inherits it has waited for it
        if not child.exists() or child.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("its child still runs")


def test_a_step_that_is_stopped_is_not_tried_again(attempts: Attempts) -> None:
    def stop() -> None:
        while not (attempts.folder / "calls").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert attempts.run("time.sleep(600)") == (143, 1)


def test_a_step_that_is_stopped_in_the_pause_is_not_tried_again(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(attempts.module.typer, "echo", stop)
    assert attempts.run("sys.exit(70)", delay=600) == (70, 1)


@pytest.mark.parametrize("is_last", [False, True])
def test_an_attempt_is_the_command_itself_without_attempts_of_its_own(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, is_last: bool
) -> None:
    """The name of the step comes first, or behind `--`, after which nothing is an option."""
    from typer.testing import CliRunner

    calls: list[tuple[str, int]] = []
    performed: list[tuple[object, ...]] = []
    remote_step = nodes.module("remote_step")

    def run_attempts(name: str, arguments: list[str], folder: Path, *numbers: float) -> int:
        assert numbers == (2, 60, 5)
        calls.append((name, CliRunner().invoke(app, arguments).exit_code))
        return 70

    monkeypatch.setattr(remote_step, "run_attempts", run_attempts)
    monkeypatch.setattr(remote_step, "perform_step", lambda *values: performed.append(values))
    app = nodes.module("cli.app").app
    options = ["--in", "s3://b/split", "--out", "s3://b/train", "--retries", "2", "--timeout", "5"]
    arguments = ["step", *options, "--", "train"] if is_last else ["step", "train", *options]
    monkeypatch.setattr("sys.argv", ["ml", *arguments])
    assert CliRunner().invoke(app, arguments).exit_code == 70
    assert calls == [("train", 0)]
    assert [values[:3] for values in performed] == [("train", ["s3://b/split"], "s3://b/train")]
