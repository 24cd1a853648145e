"""What a team lives through, on GitHub and on GitLab: the same stories, run for real.

Each platform has one world: a project, a registry and the machine that serves. Stories that need a
first push, a refused request or a second champion share one (`World.first_push` and the like), so
any story can run alone, and together they cost each event once. Both platforms have the same graph
(test_graph.py proves it), so `make test` has a story on both where the platforms differ, else on
one; `make nightly` has them all on both, with every job of each event.

Jobs run by act and gitlab-ci-local (see hosts/); image and service are real, and so is GitHub's
registry. GitLab's is a stand-in that refuses media types as GitLab's own does.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import standins.registry
import test_image
from conftest import Project, shared_settings
from filelock import FileLock
from hosts import Host, Run
from hosts.api import ACCESS
from hosts.fixtures import HOSTS, ready
from hosts.registry import free_port, serving
from standins.registry import GITLAB

pytestmark = [
    pytest.mark.slow,  # and root, for buildah's isolation by chroot
    pytest.mark.needs("buildah", "dpkg-query", "skopeo", "docker-registry", root=True),
]
SHIPPED = "max_iter: 300"
FEW_TESTS = "-k 'contract or features'"
WEAK = "max_iter: 15"
BETTER = "max_iter: 80"
POOR = "max_iter: 1"
BLIND = """    blind = pl.col("origin") == "JFK"
    rows = rows.with_columns(pl.when(~blind).then(pl.all()))
"""
CHECKS = {"lint", "types", "test"}
IMAGE = {"image", "build", "attest-image"}
GATE_JOBS = {"register", "attest", "verify", *IMAGE, "staging", "production"}  # behind the gate
DELIVERY = {"deliver", *GATE_JOBS}
PIPELINE = {"controls", "validate", "candidate", "rehearsal", "report", "comment"}


def on(*platforms: str) -> pytest.MarkDecorator:
    """Tell a story on these platforms in `make test`, and on both in `make nightly`.

    Forgejo and Gitea run what is exported, which has a story of its own in test_ci_exports.py.
    """
    others = sorted({"github", "gitlab"} - set(platforms))
    twins = [pytest.param(name, marks=pytest.mark.nightly) for name in others]
    return pytest.mark.parametrize("world", [*platforms, *twins], indirect=True, scope="module")


@dataclass
class World:
    """A platform with the project on it, the registry, and the machine that serves."""

    host: Host
    home: Path
    place: str  # HOST/NAME in the registry
    port: int
    project: Project
    whole: bool  # whether every job of an event runs, even those that a story is not about

    @cached_property
    def first_push(self) -> Run:
        """Push the project for the first time."""
        run = self.host.push()
        # `make nightly` has run all of the project's own tests: from here on they are a few.
        self.host.more["PYTEST_ADDOPTS"] = FEW_TESTS
        return run

    @cached_property
    def worsened(self) -> Run:
        """Propose a model that is worse than the champion, on the branch `faster`."""
        self.started()
        self.restart("faster")
        self.edit("config/model.yaml", WEAK, POOR)
        self.host.commit("Train less")
        with self.about(PIPELINE):
            return self.host.propose("faster")

    @cached_property
    def merged(self) -> Run:
        """Merge a better model into main."""
        self.started()
        self.restart("better")
        self.edit("config/model.yaml", WEAK, BETTER)
        self.host.commit("Train more")
        self.host.git("checkout", "-q", "main")
        self.host.git("merge", "-q", "--no-ff", "better", "-m", "Merge")
        with self.about({"train", *DELIVERY}):
            return self.host.push()

    def started(self) -> None:
        """See that the first push was green."""
        assert self.first_push.ok, outcome(self.first_push)

    def has_two_champions(self) -> None:
        """See that one champion has followed another."""
        assert self.merged.ok, outcome(self.merged)

    @contextmanager
    def about(self, jobs: Collection[str]) -> Iterator[None]:
        """Run these jobs alone: the others of an event are not what the story is about."""
        every = CHECKS | PIPELINE | DELIVERY | {"train"}
        with self.host.without(() if self.whole else every - set(jobs)):
            yield

    @property
    def image_job(self) -> str:
        return "image" if self.host.name == "github" else "build"

    def edit(self, path: str, old: str, new: str) -> None:
        """Change a file of the project."""
        file = self.host.project / path
        text = file.read_text("utf-8")
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new, 1), "utf-8")

    def restart(self, branch: str) -> None:
        """Begin a branch where main is."""
        self.host.git("checkout", "-q", "--force", "-B", branch, "main")

    def models(self) -> tuple[list[str], str | None]:
        """Versions in the registry, and the champion."""
        done = subprocess.run(
            ["skopeo", "list-tags", "--tls-verify=false", f"docker://{self.place}/models"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        tags = json.loads(done.stdout)["Tags"] if done.returncode == 0 else []
        versions = [t for t in tags if t != "champion" and not t.startswith("note-")]
        return sorted(versions), self.inspected("models:champion") if "champion" in tags else None

    def inspected(self, name: str) -> str:
        """The version that a tag or a digest is of."""
        done = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{self.place}/{name}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        label = json.loads(done.stdout)["annotations"]["org.opencontainers.image.version"]
        assert isinstance(label, str)
        return label

    def images(self) -> dict[str, str]:
        """Each image's tag, which is its version, and its digest."""
        done = subprocess.run(
            ["skopeo", "list-tags", "--tls-verify=false", f"docker://{self.place}/service"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        digests = {}
        for tag in json.loads(done.stdout)["Tags"] if done.returncode == 0 else []:
            url = f"http://{self.place.replace('/', '/v2/', 1)}/service/manifests/{tag}"
            kinds = ("docker.distribution.manifest.v2", "oci.image.manifest.v1")
            accept = ", ".join(f"application/vnd.{kind}+json" for kind in kinds)
            request = urllib.request.Request(url, headers={"Accept": accept}, method="HEAD")
            with urllib.request.urlopen(request, timeout=10) as answer:
                digests[tag] = answer.headers["Docker-Content-Digest"]
        return digests

    def serves(self) -> str:
        """The version that answers on the machine that serves."""
        url = f"http://127.0.0.1:{self.port}/version"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(json.load(answer)["version"])

    def attested(self) -> list[dict[str, Any]]:
        """What was attested."""
        return [json.loads(p.read_text()) for p in sorted(self.host.attestations.glob("*.json"))]


@pytest.fixture(scope="session")
def images(run_folder: Path) -> dict[str, str]:
    """Make a store of buildah, once for all workers, and return the variables that name it to jobs.

    It has what stands for python:3.11-slim, and keeps the layers that one image has with another.
    """
    folder = run_folder / "images"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        ready = folder / "driver"
        if not ready.exists():
            driver = "overlay" if test_image.overlays(folder) else "vfs"
            store = test_image.Buildah(folder / "buildah", driver)
            store.folder.mkdir()
            test_image.base(store)
            ready.write_text(driver)
    return {"STANDIN_BUILDAH": str(folder / "buildah"), "STANDIN_STORAGE": ready.read_text()}


@contextmanager
def as_gitlab_has_it(folder: Path) -> Iterator[str]:
    """Serve a registry that takes the media types of GitLab's list alone; give its address."""
    with standins.registry.serving(standins.registry.Registry(GITLAB, folder=folder)) as served:
        yield served.address


REGISTRIES = {"github": serving, "gitlab": as_gitlab_has_it}


@pytest.fixture(scope="module")
def world(
    request: pytest.FixtureRequest,
    images: dict[str, str],
    run_folder: Path,
    project: Callable[[int], Project],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """A platform, with a level-2 project that a team has just generated and set up."""
    ready(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    generated = project(2)
    port = free_port()
    files = folder / "project"
    files.mkdir()
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=generated.path, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(files)], input=packed.stdout, check=True)
    (folder / "registry").mkdir()
    with REGISTRIES[request.param](folder / "registry") as registry:
        place = f"{registry}/team/project"
        delivery = files / "config/delivery.yaml"
        text = delivery.read_text("utf-8").replace("watch: {seconds: 30}", "watch: {seconds: 1}")
        text = text.replace("registry: registry", f"registry: oci+http://{place}/models")
        text = text.replace("port: 8080", f"port: {port}")
        delivery.write_text(f"{text}images: {place}/service\n", "utf-8")
        home = folder / "home of the service"
        variables = {"ML_HOME": str(home), "ML_RUNNER": "ours"}
        if request.param == "gitlab":  # notes take a token of the project, and only notes do
            variables["GITLAB_TOKEN"] = ACCESS
        host = HOSTS[request.param](files, folder / "host", variables=variables, registry=registry)
        with host:
            # Else checking the same types again takes most of the time.
            host.more = images | {"STANDIN_ENVIRONMENTS": str(run_folder / "environments")}
            host.more["MYPY_CACHE_DIR"] = shared_settings()["MYPY_CACHE_DIR"]
            whole = request.config.getoption("tier") == "nightly"
            if not whole:  # all of them run in test_project.py and in a climb by `rung up`
                host.more["PYTEST_ADDOPTS"] = FEW_TESTS
            made = World(host, home, place, port, generated, whole)
            made.edit("config/model.yaml", SHIPPED, WEAK)
            made.edit("config/drift.yaml", "max_age_days: 90", "max_age_days: 0.000001")
            host.commit("A model to begin with")
            yield made
            if (home / "service").exists():
                generated.ml("stop", cwd=home)


def outcome(run: Run) -> str:
    """How the jobs ended, and the last words of those that failed."""
    failed = [name for name, end in run.jobs.items() if end == "failure"]
    return f"{run.jobs}\n" + "\n".join(
        f"[{name}] {run.logs.get(name, '')[-3000:]}" for name in failed
    )


def refused(run: Run, job: str) -> None:
    """See that this job refused, that it alone did, and that nothing behind the gate ran."""
    assert run.jobs[job] == "failure", outcome(run)
    assert [name for name, end in run.jobs.items() if end == "failure" and name != job] == []
    assert {end for name, end in run.jobs.items() if name in GATE_JOBS} <= {"skipped"}


@on("github", "gitlab")
def test_the_first_push_is_green_with_no_secret_set_and_the_model_serves(world: World) -> None:
    run = world.first_push
    assert set(run.jobs.values()) == {"success"}, outcome(run)
    versions, champion = world.models()
    assert [champion] == versions == [world.serves()]
    assert "The gate passed this model" in run.summary


@on("github", "gitlab")
def test_what_serves_was_built_once_and_comes_with_provenance_and_a_bill_of_materials(
    world: World,
) -> None:
    world.started()
    _, champion = world.models()
    assert champion
    before = world.images()
    digest = before[champion]
    digests = {attestation["digest"] for attestation in world.attested()}
    kinds = {str(attestation.get("type")) for attestation in world.attested()}
    assert digest in digests
    assert kinds == {
        "https://cyclonedx.org/bom",
        "https://model_signing/signature/v1.0",
        "https://slsa.dev/provenance/v1",
    }
    with world.about({"deliver", "verify", *IMAGE}):
        run = world.host.by_hand("deliver", version=champion)
    assert run.ok, outcome(run)
    assert run.jobs[world.image_job] == "success"
    assert world.images() == before


@on("github", "gitlab")
def test_a_version_that_was_not_attested_is_refused_before_staging(world: World) -> None:
    world.started()
    _, champion = world.models()
    kept = world.host.attestations.rename(world.host.attestations.with_name("kept"))
    world.host.attestations.mkdir()
    try:
        run = world.host.by_hand("deliver", version=str(champion))
    finally:
        shutil.rmtree(world.host.attestations)
        kept.rename(world.host.attestations)
    assert run.jobs["verify"] == "failure", outcome(run)
    assert run.jobs["staging"] == run.jobs["production"] == "skipped"


@on("github", "gitlab")
def test_a_request_that_worsens_the_model_is_refused_and_one_comment_says_why(
    world: World,
) -> None:
    run = world.worsened
    assert run.jobs["candidate"] == "failure", outcome(run)
    assert run.jobs["validate"] == run.jobs["report"] == run.jobs["comment"] == "success"
    assert run.jobs["rehearsal"] == "skipped"
    (comment,) = world.host.comments_on("faster")
    assert "❌ The gate refused this model" in comment
    assert re.search("skill (of the recipe )?over the champion, (low|upp)er end", comment)
    assert "| this model | champion |" in comment
    assert "| `candidate` | ❌ failure |" in comment


@on("github")
def test_once_it_is_mended_the_same_comment_says_so_and_the_image_was_tried(world: World) -> None:
    assert world.worsened.jobs["candidate"] == "failure"
    models = world.models()
    images = world.images()
    world.host.git("checkout", "-q", "--force", "faster")
    world.edit("config/model.yaml", POOR, BETTER)
    world.host.commit("Train more")
    with world.about(PIPELINE):
        run = world.host.propose("faster")
    assert set(run.jobs.values()) == {"success"}, outcome(run)
    (comment,) = world.host.comments_on("faster")
    assert "✅ The gate passed this model" in comment
    assert "| `candidate` | ✅ |" in comment
    assert (world.models(), world.images()) == (models, images)  # a request registers nothing


@on("github")
def test_a_request_that_breaks_the_contract_is_refused_by_validate(world: World) -> None:
    world.started()
    world.restart("contract")
    world.edit("data/raw/flights.csv", ",EWR,", ",XXX,")
    world.host.commit("An airport that nobody knows")
    with world.about(PIPELINE):
        run = world.host.propose("contract")
    assert run.jobs["validate"] == "failure", outcome(run)
    assert run.jobs["candidate"] == run.jobs["rehearsal"] == "skipped"
    (comment,) = world.host.comments_on("contract")
    assert "| `origin` |" in comment
    assert "XXX" in comment


@on("gitlab")
def test_a_request_that_ruins_one_slice_is_refused_and_the_slice_is_named(world: World) -> None:
    world.started()
    world.restart("slice")
    world.edit(
        f"src/{world.project.package}/problem/features.py",
        "    word_counts = [\n",
        f"{BLIND}    word_counts = [\n",
    )
    world.host.commit("Blind for one airport")
    with world.about(PIPELINE):
        run = world.host.propose("slice")
    assert run.jobs["candidate"] == "failure", outcome(run)
    (comment,) = world.host.comments_on("slice")
    assert "slice against the champion, origin = JFK" in comment


@on("github", "gitlab")
def test_a_request_that_breaks_the_lint_is_refused_by_lint(world: World) -> None:
    world.restart("lint")
    file = world.host.project / f"src/{world.project.package}/problem/features.py"
    file.write_text(f"import os\n{file.read_text('utf-8')}", "utf-8")
    world.host.commit("An import that nobody needs")
    with world.about({"lint"}):
        run = world.host.propose("lint")
    assert run.jobs["lint"] == "failure", outcome(run)
    assert "-import os" in run.log  # the difference that the hook would make


@on("gitlab")
def test_a_better_model_replaces_the_champion_when_it_is_merged(world: World) -> None:
    world.started()
    before, _ = world.models()
    run = world.merged
    assert set(run.jobs.values()) == {"success"}, outcome(run)
    versions, champion = world.models()
    assert champion == world.serves()
    assert [champion] == [version for version in versions if version not in before]
    assert set(world.images()) == set(versions)


@on("gitlab")
def test_a_poisoned_model_never_reaches_the_registry(world: World) -> None:
    world.started()
    before = world.models()
    world.restart("main")
    data = world.host.project / "data/raw/flights.csv"
    head, *rows = data.read_text("utf-8").splitlines()
    labels = [row.rpartition(",")[2] for row in rows]
    pairs = zip(rows, random.Random(0).sample(labels, len(labels)), strict=True)
    poisoned = [f"{row.rpartition(',')[0]},{label}" for row, label in pairs]
    data.write_text("\n".join([head, *poisoned, ""]), "utf-8")
    world.host.commit("Labels that belong to other rows")
    with world.about({"train", *DELIVERY}):
        run = world.host.push()
    refused(run, "train")
    assert world.models() == before
    assert world.serves() == before[1]
    world.host.git("revert", "--no-edit", "HEAD")
    world.host.pushed()  # which starts nothing: the stories that follow train on what was there


@on("github")
def test_a_deployment_that_fails_its_watch_rolls_back_by_itself(world: World) -> None:
    """In staging nobody asks, so nothing is too slow; in production callers do."""
    world.started()
    world.restart("main")
    before, champion = world.models()
    world.edit("config/delivery.yaml", "seconds: 1}", "seconds: 5, max_latency_ms: 0.000001}")
    model = world.host.project / "config/model.yaml"
    more = re.sub(
        r"max_iter: (\d+)", lambda n: f"max_iter: {int(n[1]) + 2}", model.read_text("utf-8")
    )
    model.write_text(more, "utf-8")  # so like the champion that the shadow has no objection
    world.host.commit("Watched too strictly for any model")
    with callers(world), world.about({"train", *DELIVERY}):
        run = world.host.push()
    assert run.jobs["staging"] == "success", outcome(run)
    assert run.jobs["production"] == "failure", outcome(run)
    assert "was rolled back" in run.log
    assert len(world.models()[0]) == len(before) + 1
    assert world.models()[1] == champion == world.serves()
    world.edit("config/delivery.yaml", "seconds: 5, max_latency_ms: 0.000001}", "seconds: 1}")
    world.host.commit("Watched as before")


@contextmanager
def callers(world: World) -> Iterator[None]:
    """Ask the service again and again, with rows of the example."""
    url = f"http://127.0.0.1:{world.port}/predict"
    over = threading.Event()
    known = pl.read_csv(world.host.project / "data/raw/flights.csv").drop("delayed")
    rows = cycle(known.sample(fraction=1, shuffle=True, seed=0).to_dicts())

    def ask() -> None:
        while not over.wait(0.05):
            body = json.dumps({"rows": [next(rows)]}).encode()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with suppress(OSError):
                urllib.request.urlopen(request, timeout=10).close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@on("gitlab")
def test_one_click_rolls_back_and_a_drill_of_it_changes_nothing(world: World) -> None:
    world.has_two_champions()
    versions, champion = world.models()
    drill = world.host.schedule("drill")
    assert drill.ok, outcome(drill)
    assert world.models() == (versions, champion)
    assert world.serves() == champion
    run = world.host.by_hand("rollback")
    assert run.ok, outcome(run)
    assert world.models()[1] == world.serves() == versions[0] != champion


@on("github")
def test_an_alarm_of_the_monitor_starts_one_training(world: World) -> None:
    world.started()
    for _ in range(2):
        run = world.host.schedule("monitor")
        assert run.ok, outcome(run)
    (event,) = world.host.dispatched
    with world.about({"train"}):
        run = world.host.dispatch("train")
    assert run.jobs["train"] == "success", f"{event} {outcome(run)}"


@on("github")
def test_each_night_the_champion_scores_what_is_new_in_a_source_and_nothing_without_one(
    world: World,
) -> None:
    world.started()
    world.restart("main")
    if world.host.name == "github":  # on GitLab nothing is scheduled without a source
        run = world.host.schedule("score")
        assert run.jobs == {"verify": "success", "score": "skipped"}, outcome(run)
    source = world.home.parent / "flights"
    source.mkdir()
    known = pl.read_csv(world.host.project / "data/raw/flights.csv", infer_schema=False)
    known.head(50).write_csv(source / "monday.csv")
    places = json.dumps({"source": str(source), "sink": str(world.home.parent / "scores")})
    world.edit("config/delivery.yaml", "shadow:", f"score: {places}\nshadow:")
    world.host.commit("A source to score")
    world.host.pushed()
    run = world.host.schedule("score")
    assert run.jobs["score"] == "success", outcome(run)
    assert "50 rows of 1 partition: 50 scored, 0 refused" in run.log
    scores = pl.read_parquet(world.home.parent / "scores/scored/monday.csv.parquet")
    assert set(scores["model"]) == {world.models()[1]}
    assert (world.home / "predictions").is_dir()  # where the monitor looks


@on("github")
def test_new_data_start_the_same_pipeline(world: World) -> None:
    world.started()
    with world.about({"train"}):
        run = world.host.dispatch("new-data")
    assert run.jobs["train"] == "success", outcome(run)


@on("gitlab")
def test_without_a_registry_the_message_is_clear_and_nothing_is_half_done(world: World) -> None:
    world.started()
    before = world.models()
    world.restart("main")
    gone = f"127.0.0.1:{free_port()}"
    file = world.host.project / "config/delivery.yaml"
    file.write_text(file.read_text("utf-8").replace(world.place.partition("/")[0], gone), "utf-8")
    world.host.commit("A registry that is down")
    with world.about({"train", *DELIVERY}):
        run = world.host.push()
    refused(run, "train")
    assert "the registry does not answer" in run.log
    assert world.models() == before


@on("github")
def test_without_a_lock_file_the_message_is_clear(world: World) -> None:
    world.restart("unlocked")
    (world.host.project / "uv.lock").unlink()
    world.host.commit("No lock file")
    with world.about(CHECKS):
        run = world.host.propose("unlocked")
    assert "success" not in {run.jobs[name] for name in ("lint", "types", "test")}
    assert "Unable to find lockfile" in run.log
