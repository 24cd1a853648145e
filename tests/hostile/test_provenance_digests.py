"""What was verified is what runs: a registry that somebody else can write to changes nothing.

Each attack puts a package with a payload where a good one was. The payload writes a file as soon as
it is imported, and no such file may ever be there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import packages
import polars as pl
import pytest
from rung_runtime import RefusedError, UsageError

Module = Callable[[str], ModuleType]
CODE = "problem/features.py"
FACTS = {"commit": "c0ffee", "data_digest": "sha256:0123456789", "task": "binary"}


@pytest.fixture(scope="session")
def good(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package that only predicts."""
    return packages.package(module, tmp_path_factory.mktemp("good") / "model")


@dataclass
class Place:
    """A project's folder with a registry, and a payload that marks it when it is imported."""

    path: Path
    module: Module
    good: Path
    count: int = 0

    @property
    def marker(self) -> Path:
        """The file that the payload writes."""
        return self.path / "the-payload-ran"

    @property
    def store(self) -> Any:
        """The registry."""
        return self.module("registry").open_registry()

    def package(self, name: str, *, evil: bool = False, **manifest: Any) -> dict[str, Any]:
        """Make a package in a folder of this name; no two are alike."""
        texts = {"MODEL_CARD.md": name}
        if evil:
            texts[CODE] = f"open({str(self.marker)!r}, 'w').close()\n"
        self.count += 1
        return packages.variant(
            self.module, self.good, self.path / name, texts, f"{self.count:06}", **manifest
        )

    def push(self, name: str, compared_with: str = "first", **manifest: Any) -> Any:
        """Register a good package, and return its version."""
        made = self.package(name, **manifest)
        self.store.push(self.path / name, made, FACTS | {"compared_with": compared_with})
        return self.module("registry").find_exact(made["version"])

    def champions(self, count: int) -> list[Any]:
        """Promote so many versions, each compared with the one before."""
        versions: list[Any] = []
        for number in range(count):
            before = versions[-1].digest if versions else "first"
            versions.append(self.push(f"champion-{number}", before))
            self.module("registry").promote(versions[-1].version)
        return versions

    def move(self, version: str, name: str, **manifest: Any) -> dict[str, Any]:
        """Let a version's name stand for an evil package, as whoever may write can."""
        made = self.package(name, evil=True, **{"version": version} | manifest)
        index = self.path / "registry/index.json"
        layout = json.loads(index.read_text())
        of_version = "org.opencontainers.image.ref.name"
        layout["manifests"] = [
            entry for entry in layout["manifests"] if entry["annotations"][of_version] != version
        ]
        index.write_text(json.dumps(layout))
        self.store.push(self.path / name, made, FACTS | {"compared_with": "first"})
        return made


@pytest.fixture
def place(module: Module, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name in ("CI", "GITHUB_ACTIONS", "CI_API_V4_URL", "ML_REGISTRY", "ML_CHAMPION", "ML_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module("cli.registry"), "START", tmp_path)  # or that of an earlier test
    (tmp_path / "config").mkdir()
    (tmp_path / "config/delivery.yaml").write_text("registry: registry\nservice: {port: 0}\n")
    return Place(tmp_path, module, good)


COMMANDS: dict[str, Callable[[Module, str], object]] = {
    "resolve": lambda module, name: module("cli.registry").resolve(name),
    "fetch": lambda module, name: module("cli.registry").fetch(name, Path("fetched")),
    "deploy": lambda module, name: module("delivery").deploy(name),
    "deploy to staging": lambda module, name: module("delivery").deploy(name, "local/staging"),
    "smoke": lambda module, name: module("delivery").smoke("http://127.0.0.1:9", name),
    "promote": lambda module, name: module("registry").promote(name),
    "rollback": lambda module, name: module("delivery").rollback(name),
    "image": lambda module, name: module("delivery.image").image(name, push=True),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_tag_that_moved_after_it_was_verified_is_refused_before_its_code_is_imported(
    place: Place, command: str
) -> None:
    version, _ = place.champions(2)
    place.move(version.version, "evil")
    with pytest.raises(RefusedError, match=r"another package|somebody has"):
        COMMANDS[command](place.module, version.reference)
    assert not place.marker.exists()
    assert not (place.path / "fetched").exists()


# What a job does that holds a token that writes; `deploy` and `rollback` also start the service, in
# which the code of a package runs.
def score(module: Module, version: Any) -> None:
    """Run `ml score` on one row."""
    Path("in").mkdir()
    pl.DataFrame({"x": [1]}).write_parquet("in/rows.parquet")
    module("cli.score").score(str(Path("in").resolve()), str(Path("out").resolve()), version)


def prepare_image(module: Module, version: Any) -> None:
    """Do what `ml image` does before its build."""
    Path("Dockerfile").write_text('ARG CHECK=yes\nARG WITHOUT="--no-install-package scipy"\n')
    folder = module("registry").fetch_version(version, Path("built"))
    module("delivery.image").build_arguments(folder, version.digest)


WRITERS: dict[str, Callable[[Module, Any], object]] = {
    "resolve": lambda module, version: module("cli.registry").resolve(version.reference),
    "fetch": lambda module, version: module("cli.registry").fetch(version.version, Path("fetched")),
    "open as deploy does": lambda module, version: (
        module("delivery.service_folder").open_version(version).__enter__()
    ),
    "monitor": lambda module, version: module("monitoring.champion").load_champion(version),
    "retrain": lambda module, _: module("monitoring").retrain(lambda: None, None, ""),
    "score": lambda module, version: score(module, version.reference),
    "image": prepare_image,
    "sbom": lambda module, version: module("delivery.sbom").described(
        module("registry").fetch_version(version, Path("described")),
        {"specVersion": "1.5", "metadata": {"component": {"name": "x", "bom-ref": "x"}}},
    ),
}


@pytest.mark.parametrize("command", WRITERS)
def test_no_code_of_a_package_runs_in_a_process_that_may_hold_a_token(
    place: Place, command: str
) -> None:
    """Also where the package is the very one that was verified."""
    version = place.push("first")
    made = place.move(version.version, "evil")
    moved = replace(version, digest=made["package_digest"])
    place.module("registry").promote(version.version)
    assert place.module("registry").current_champion().digest == moved.digest
    with suppress(UsageError, RefusedError, OSError, LookupError):
        WRITERS[command](place.module, moved)
    imported = [name for name in sys.modules if made["package_digest"][-12:] in name]
    assert imported == []
    assert not place.marker.exists()


def test_what_is_no_reference_is_never_taken_for_a_part_of_a_name(place: Place) -> None:
    version, _ = place.champions(2)
    for form in "{0}@", "{0}@sha256:", "{0}@{1}0", "@{1}", "champion@{1}", "{0}@md5:00", "{0}@@{1}":
        called = form.format(version.version, version.digest)
        for command in COMMANDS.values():
            with pytest.raises((UsageError, RefusedError)):
                command(place.module, called)


def test_what_is_resolved_names_its_package_and_each_kind_of_name_resolves(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = place.champions(2)
    newest = place.push("newest")
    resolve = place.module("cli.registry").resolve
    for name, version in {
        None: newest,
        "champion": second,
        "previous": first,
        first.version: first,
        first.version[-8:]: first,
        first.reference: first,
    }.items():
        resolve(name)
        assert capsys.readouterr().out == f"{version.version}@{version.digest}\n"


def test_a_registry_that_moves_a_tag_between_two_requests_leaves_the_copy_of_before(
    place: Place,
) -> None:
    registry = place.module("registry")
    version = place.push("first")
    folder = registry.fetch_version(version, place.path / "service/models" / version.version)
    (folder / "MODEL_CARD.md").unlink()  # so that it is fetched again
    place.move(version.version, "evil")
    with pytest.raises(RefusedError, match="no longer"):
        registry.fetch_version(version, folder)
    assert "the-payload-ran" not in (folder / CODE).read_text()
    assert [path.name for path in folder.parent.iterdir()] == [version.version]


def test_an_evil_copy_in_the_cache_is_replaced_by_what_the_registry_has(place: Place) -> None:
    registry = place.module("registry")
    version = place.push("first")
    place.package("evil", evil=True, version=version.version)
    for cache in ("service/models", "artifacts/champion"):
        shutil.copytree(place.path / "evil", place.path / cache / version.version)
        folder = registry.fetch_version(version, place.path / cache / version.version)
        assert (
            json.loads((folder / "manifest.json").read_text())["package_digest"] == version.digest
        )
    with place.module("delivery.service_folder").open_version(version):
        assert not place.marker.exists()


@pytest.mark.parametrize("planted", ["problem/__pycache__/x.pyc", "problem/__init__.py", "a/b.so"])
def test_a_file_that_is_planted_beside_a_package_is_no_part_of_it(
    place: Place, planted: str
) -> None:
    version = place.push("first")
    fetched = place.module("registry").fetch_version
    folder = fetched(version, place.path / "cache")
    (folder / planted).parent.mkdir(exist_ok=True)
    (folder / planted).write_text(f"open({str(place.marker)!r}, 'w').close()")
    if planted.startswith("problem"):  # which is all that Python would import
        with pytest.raises(place.module("model_package").UsageError, match="damaged"):
            place.module("model_package").load_package(folder)
    assert not (fetched(version, folder) / planted).exists()


def test_a_link_in_the_cache_is_no_copy(place: Place) -> None:
    version = place.push("first")
    fetched = place.module("registry").fetch_version
    folder = fetched(version, place.path / "cache")
    (folder / CODE).rename(place.path / "elsewhere.py")
    (folder / CODE).symlink_to(place.path / "elsewhere.py")
    assert not (fetched(version, folder) / CODE).is_symlink()


ELSEWHERE = ["/dev/zero", "../outside", "problem/../../outside", "pipe", "problem"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_manifest_that_names_what_is_no_file_of_its_package_has_nothing_read(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inference = place.module("model_package")
    folder = place.path / "one"
    manifest = place.package("one")
    (place.path / "outside").write_text("a secret")
    os.mkfifo(folder / "pipe")
    manifest["files"][name] = inference.digest(place.path / "outside")
    manifest["package_digest"] = inference.package_digest(manifest["files"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    digest = inference.digest

    def of_a_file(path: Path) -> Any:  # what is none may never end
        assert path.resolve().is_relative_to(folder)
        assert path.is_file()
        return digest(path)

    monkeypatch.setattr(inference, "digest", of_a_file)
    with pytest.raises(UsageError, match="is damaged"):
        inference.verified_manifest(folder)


def test_a_manifest_that_is_too_long_too_deep_or_without_a_name_ends_in_a_sentence(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = place.module("registry.download")
    inference = place.module("model_package")
    version = place.push("one")
    folder = place.path / "one"
    whole = json.loads((folder / "manifest.json").read_text())
    for text in ("[" * 100_000, '{"a":' * 100_000, json.dumps(whole | {"version": None})):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(UsageError):
            download._require(folder, version)
    del whole["version"]
    (folder / "manifest.json").write_text(json.dumps(whole))
    with pytest.raises(UsageError, match="of another name"):
        download._require(folder, version)
    monkeypatch.setattr(inference, "MAX_DOCUMENT_BYTES", 100)
    with pytest.raises(UsageError, match="is damaged"):
        inference.verified_manifest(folder)


@pytest.mark.parametrize("key", ["package_digest", "model_digest"])
def test_what_a_registry_has_for_a_digest_is_no_line_and_no_word_of_a_shell(
    place: Place, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    version = place.push("one")
    registry = place.module("registry")
    evil = {"digest": version.digest, "model_digest": version.model_digest}
    name = key.removeprefix("package_")
    for text in ("", "sha256:0", f"{evil[name]}\n", f"{evil[name]}\nimage=theirs", "'; id; '"):
        with pytest.raises(UsageError, match="for a digest") as error:
            registry.Version(version.version, created="", facts={}, **evil | {name: text})
        assert str(error.value).isprintable()
    index = json.loads((place.path / "registry/index.json").read_text())
    (entry,) = index["manifests"]
    manifest = json.loads(place.store.store.manifest(entry["digest"])[1])
    manifest["annotations"][f"vnd.rung.{key}"] = f"{evil[name]}\nimage=theirs"
    place.store.store.tag(version.version, json.dumps(manifest).encode(), "")
    with pytest.raises(UsageError, match="for a digest"):
        place.module("cli.registry").resolve(version.version)
    assert capsys.readouterr().out == ""


def test_an_old_model_does_not_pass_for_a_new_one(place: Place) -> None:
    version = place.push("one")
    registry = place.module("registry")
    download = place.module("registry.download")
    assert registry.fetch_version(version, Path("fetched")) == Path("fetched")
    younger = replace(version, created="2999-01-01T00:00:00.000+00:00")
    with pytest.raises(UsageError, match="not made when the registry says"):
        download._require(Path("fetched"), younger)
    for created in ("", "yesterday", "9" * 50, "\n::error::x"):
        with pytest.raises(UsageError, match="was made at") as error:
            _ = replace(version, created=created).made
        assert str(error.value).isprintable()
    with pytest.raises(UsageError, match="does not record what data"):
        _ = replace(version, facts={}).data_digest


def test_an_old_package_under_a_new_name_is_refused(place: Place) -> None:
    registry = place.module("registry")
    made = place.package("old")
    renamed = made | {"version": "20990101-000000-ffffffff"}
    place.store.push(place.path / "old", renamed, FACTS | {"compared_with": "first"})
    version = registry.find("2099")
    assert version.digest == made["package_digest"]
    with pytest.raises(UsageError, match="damaged"):
        place.store.fetch(version.version, place.path / "fetched")
    with pytest.raises(UsageError):
        registry.fetch_version(version, place.path / "fetched")


@pytest.mark.parametrize("key", ["model_digest", "refit_digest"])
def test_the_digest_of_the_model_is_that_of_its_file(place: Place, key: str) -> None:
    inference = place.module("model_package")
    place.package("made", evil=True, **{key: "sha256:" + "0" * 64})
    with pytest.raises(inference.UsageError, match="damaged"):
        inference.load_package(place.path / "made")
    assert not place.marker.exists()


def test_a_refitted_package_names_the_model_that_its_gate_judged(place: Place) -> None:
    inference = place.module("model_package")
    digest = place.module("artifacts").digest
    own = digest(place.good / "model.skops")
    judged = "sha256:" + "1" * 64
    gate = json.dumps({"model_digest": judged})
    for number, (text, model_digest, passes) in enumerate(
        [(gate, judged, True), (gate, "sha256:" + "2" * 64, False), ("{}", judged, False)]
    ):
        folder = place.path / f"refitted-{number}"
        more = {"refit_digest": own, "model_digest": model_digest}
        packages.variant(place.module, place.good, folder, {"gate.json": text}, **more)
        if passes:
            assert inference.verified_manifest(folder)["model_digest"] == model_digest
        else:
            with pytest.raises(inference.UsageError, match="damaged"):
                inference.verified_manifest(folder)


def test_a_registry_that_names_another_model_is_refused(place: Place) -> None:
    """Else a champion that claims to be the candidate would be compared with nothing."""
    made = place.package("made")
    claimed = made | {"model_digest": "sha256:" + "0" * 64}
    place.store.push(place.path / "made", claimed, FACTS | {"compared_with": "first"})
    registry = place.module("registry")
    with pytest.raises(UsageError):
        registry.fetch_version(registry.find(), place.path / "fetched")


def test_a_service_opens_the_package_that_was_deployed_and_no_other(place: Place) -> None:
    desired_module = place.module("serving.desired")
    made = place.package("good")
    place.package("evil", evil=True)
    desired = {"folder": "evil", "version": "v", "package_digest": made["package_digest"]}
    (place.path / "service").mkdir()
    (place.path / "service/desired.json").write_text(json.dumps(desired))
    with pytest.raises(desired_module.UsageError, match="not the package that was deployed"):
        desired_module.load_desired()
    back = {"previous": "good", "previous_digest": made["package_digest"]}
    (place.path / "service/desired.json").write_text(json.dumps(desired | back))
    served, error = desired_module.load_desired()
    assert served.model.manifest["package_digest"] == made["package_digest"]
    assert "not the package that was deployed" in error
    assert not place.marker.exists()


# --- the champion, and who was champion before -------------------------------------------------


def test_a_champion_that_is_not_the_one_that_was_verified_is_refused_before_its_import(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = place.module("delivery")
    rival = place.module("delivery.deploy")._rival
    first, second = place.champions(2)
    monkeypatch.setenv("ML_CHAMPION", first.reference)
    with pytest.raises(RefusedError, match="ML_CHAMPION"):
        delivery.smoke("http://127.0.0.1:9")
    with pytest.raises(RefusedError, match="ML_CHAMPION"):
        rival(second.version, second.version)
    monkeypatch.setenv("ML_CHAMPION", second.reference)
    assert rival(second.version, second.version) == second
    monkeypatch.setenv("ML_CHAMPION", second.version)
    with pytest.raises(UsageError, match="ML_CHAMPION"):
        rival(second.version, second.version)


def forged(place: Place, kind: str) -> None:
    """Write a note of who was champion, with an evil version before the champion."""
    made = place.package("evil", evil=True)
    place.store.push(place.path / "evil", made, FACTS | {"compared_with": "first"})
    entries = json.loads(place.store.get("history"))
    entry = entries[-1] | {"version": made["version"], "package_digest": made["package_digest"]}
    if kind == "without a digest":
        del entry["package_digest"]
    if kind == "with another digest":
        entry["package_digest"] = "sha256:" + "0" * 64
    if kind == "before all":
        entries.insert(0, entry)
    elif kind == "alone":
        entries = [entry, entries[-1]]
    else:
        entries.insert(-1, entry)
    place.store.set("history", json.dumps(entries))


KINDS = ["with its digest", "without a digest", "with another digest", "alone", "before all"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_history_sends_no_rollback_to_a_version_that_was_never_champion(
    place: Place, kind: str
) -> None:
    registry = place.module("registry")
    delivery = place.module("delivery")
    *_, first, second = place.champions(3)
    forged(place, kind)
    names = [json.loads((place.path / "evil/manifest.json").read_text())["version"]]
    if kind != "before all":  # then the last champion is who it was
        names += [None, "previous"]
    for name in names:
        with pytest.raises(RefusedError, match=r"compared with another|promoted as"):
            registry.find(name) if name == "previous" else delivery.rollback(name)
    assert registry.current_champion() == second
    assert not place.marker.exists()
    if kind == "before all":
        assert registry.earlier_champion() == first


@pytest.mark.parametrize(
    "note", ["{}", "[1]", '[{"at": "now"}]', "nothing", '[{"version": 1}]', "[null]", '"x"']
)
def test_a_note_that_is_no_history_is_said_to_be_damaged(place: Place, note: str) -> None:
    registry = place.module("registry")
    place.champions(2)
    place.store.set("history", note)
    with pytest.raises((UsageError, RefusedError), match=r"damaged|no champion"):
        registry.earlier_champion()


def test_a_champion_of_before_that_is_gone_or_another_is_refused(place: Place) -> None:
    registry = place.module("registry")
    first, _ = place.champions(2)
    place.move(first.version, "evil")
    with pytest.raises(RefusedError, match="promoted as"):
        registry.earlier_champion()
    with pytest.raises(RefusedError, match="promoted as"):
        place.module("delivery").rollback()
    assert not place.marker.exists()


def test_rollback_goes_to_the_version_that_was_verified_by_its_digest(place: Place) -> None:
    registry = place.module("registry")
    first, second, _ = place.champions(3)
    assert registry.earlier_champion() == second
    assert registry.earlier_champion(first.reference) == first
    other = f"{first.version}@sha256:{'0' * 64}"
    with pytest.raises(RefusedError, match="another package"):
        registry.earlier_champion(other)
    never = place.push("never")
    with pytest.raises(RefusedError, match="no champion"):
        registry.earlier_champion(never.reference)


def test_a_folder_that_is_no_package_is_not_replaced_by_one(place: Place) -> None:
    version = place.push("first")
    (place.path / "mine").mkdir()
    (place.path / "mine/thesis.txt").write_text("years of work")
    fetch = place.module("cli.registry").fetch
    start = place.module("cli.registry").START
    with pytest.raises(UsageError, match="not a package"):
        fetch(version.version, place.path / "mine")
    assert (place.path / "mine/thesis.txt").exists()
    assert isinstance(start, Path)
    fetch(version.version, place.path / "new")
    fetch(version.version, place.path / "new")
    assert (place.path / "new/manifest.json").exists()


def test_the_service_is_told_the_digest_of_what_it_serves(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = place.module("adapters.target_local")
    monkeypatch.setattr(local.Local, "ensure_running", lambda _: None)
    monkeypatch.setattr(local.Local, "is_serving", lambda *_: True)
    (place.path / "service").mkdir()

    def switch(version: str, digest: str) -> tuple[str, str | None, str | None]:
        local.Local().switch(version, digest)
        desired = json.loads((place.path / "service/desired.json").read_text())
        assert desired["version"] == version
        return desired["package_digest"], desired["previous"], desired["previous_digest"]

    assert switch("one", "sha256:1") == ("sha256:1", None, None)
    assert switch("two", "sha256:2") == ("sha256:2", "service/models/one", "sha256:1")
    assert switch("two", "sha256:2") == ("sha256:2", "service/models/one", "sha256:1")
    assert switch("two", "sha256:3") == ("sha256:3", "service/models/one", "sha256:1")
