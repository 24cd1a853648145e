"""What is in a registry: ModelPack, GitLab's dialect, packages of 0.2, and manifests of enemies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rung_runtime import RefusedError, UsageError
from standins.registry import GITLAB, Registry, serving, sha
from test_registry import FACTS, content, package

Import = Callable[[str], ModuleType]
NAME = "team/models"
PACK = "application/vnd.cncf.model."
OWN = "vnd.rung."
STANDARD = "org.opencontainers.image."
TITLE = f"{STANDARD}title"


class Shelf:
    """A registry with packages in it, opened by ours as a folder or by its address."""

    def __init__(self, registry: ModuleType, path: Path, remote: Registry | None) -> None:
        self.module = registry
        self.path = path
        self.remote = remote
        where = f"oci+http://{remote.address}/{NAME}" if remote else str(path / "registry")
        self.where = where

    @property
    def open(self) -> Any:
        return self.module.open_registry()

    def push(self, n: int, *, card: bool = False, compared_with: str = "first") -> str:
        """Push package n; its version."""
        folder = self.path / f"package-{n}"
        manifest = package(folder, n)
        if card:
            (folder / "MODEL_CARD.md").write_text("# A model\n")
            manifest["files"]["MODEL_CARD.md"] = sha(b"# A model\n")
            whole = sha(json.dumps(manifest["files"], sort_keys=True).encode())
            manifest |= {"package_digest": whole}
            (folder / "manifest.json").write_text(json.dumps(manifest))
        self.open.push(folder, manifest, FACTS | {"compared_with": compared_with})
        return str(manifest["version"])

    def manifest(self, tag: str) -> dict[str, Any]:
        """What is stored under a tag."""
        manifest: dict[str, Any] = json.loads(self.open.store.manifest(tag)[1])
        return manifest

    def store(self, tag: str, manifest: dict[str, Any] | bytes, *blobs: bytes) -> None:
        """Store what somebody else made."""
        text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        store = self.open.store
        for blob in blobs:
            store.put(blob)
        store.tag(tag, text, "")


@pytest.fixture(params=["folder", "remote", "gitlab"])
def shelf(
    request: pytest.FixtureRequest, module: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shelf]:
    """Open a registry that is empty."""
    for name in ("GITHUB_ACTIONS", "CI_API_V4_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    registry = module("registry")
    locks = module("registry.locks")
    monkeypatch.setattr(locks, "TIMING", locks.LeaseTiming(max_write_s=0.3, ttl_s=1.0))
    (tmp_path / "config").mkdir()
    (tmp_path / "config/delivery.yaml").write_text("{}")
    if request.param == "folder":
        monkeypatch.setenv("ML_REGISTRY", str(tmp_path / "registry"))
        yield Shelf(registry, tmp_path, None)
        return
    with serving(Registry(knows=GITLAB if request.param == "gitlab" else None)) as remote:
        made = Shelf(registry, tmp_path, remote)
        monkeypatch.setenv("ML_REGISTRY", made.where)
        yield made


def of_0_2(shelf: Shelf, n: int, **more: str) -> str:
    """Store package n as 0.2.0 wrote it; its version."""
    folder = shelf.path / f"package-{n}"
    about = package(folder, n)
    facts = FACTS | {"compared_with": "first"} | more
    facts |= {key: about[key] for key in ("package_digest", "model_digest")}
    annotations = {STANDARD + key: about[key] for key in ("version", "created")}
    annotations[f"{STANDARD}revision"] = facts["commit"]
    annotations |= {OWN + key: value for key, value in facts.items()}
    blobs = [(folder / name).read_bytes() for name in [*about["files"], "manifest.json"]]
    layers = [
        {
            "mediaType": "application/octet-stream",
            "digest": sha(blob),
            "size": len(blob),
            "annotations": {TITLE: name},
        }
        for name, blob in zip([*about["files"], "manifest.json"], blobs, strict=True)
    ]
    config = json.dumps({"config": {"Labels": annotations}}).encode()
    kind = "application/vnd.oci.image.config.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.rung.model.v1",
        "config": {"mediaType": kind, "digest": sha(config), "size": len(config)},
        "layers": layers,
        "annotations": annotations,
    }
    if shelf.remote:  # it was taken then, or is in a registry that takes it
        shelf.remote.knows = None
    shelf.store(about["version"], manifest, config, *blobs)
    return str(about["version"])


@pytest.mark.parametrize("shelf", ["folder", "remote"], indirect=True)
def test_a_version_is_a_model_pack(shelf: Shelf) -> None:
    version = shelf.push(1, card=True)
    manifest = shelf.manifest(version)
    assert manifest["artifactType"] == f"{PACK}manifest.v1+json"
    assert manifest["config"]["mediaType"] == f"{PACK}config.v1+json"
    kinds = {}
    for layer in manifest["layers"]:
        names = layer["annotations"]
        assert names["org.cncf.model.filepath"] == names[TITLE]
        kinds[names[TITLE]] = layer["mediaType"].removeprefix(PACK)
    assert kinds == {
        "README.md": "doc.v1.raw",
        "contract.json": "weight.config.v1.raw",
        "gate.json": "weight.config.v1.raw",
        "manifest.json": "weight.config.v1.raw",
        "model.skops": "weight.v1.raw",
        "problem/features.py": "code.v1.raw",
    }
    to = shelf.path / "config.json"
    descriptor = manifest["config"]
    assert (
        shelf.open.store.download(descriptor["digest"], descriptor["size"], to)
        == descriptor["digest"]
    )
    config = json.loads(to.read_text())
    assert set(config) == {"descriptor", "config", "modelfs"}  # the schema allows no other
    assert set(config["descriptor"]) == {"name", "version", "createdAt", "revision"}
    assert datetime.fromisoformat(config["descriptor"]["createdAt"]).tzinfo
    assert config["config"] == {"format": "skops"}
    digests = [layer["digest"] for layer in manifest["layers"]]
    assert config["modelfs"] == {"type": "layers", "diffIds": digests}


@pytest.mark.parametrize("shelf", ["gitlab"], indirect=True)
def test_gitlab_gets_types_of_its_list_and_each_blob_once(shelf: Shelf) -> None:
    assert shelf.remote
    version = shelf.push(1, card=True)
    manifest = shelf.manifest(version)
    assert "artifactType" not in manifest
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    kinds = {layer["mediaType"] for layer in manifest["layers"]}
    assert kinds == {"application/octet-stream"}
    assert manifest["annotations"][f"{OWN}kind"] == "model"
    refused = shelf.remote.count("PUT", "/manifests/") - 1
    assert refused == 1
    assert shelf.remote.count("PUT", "/blobs/") == len(shelf.remote.blobs)
    shelf.remote.requests.clear()
    shelf.open.set("alarms", "{}")
    assert shelf.remote.count("PUT", "/manifests/") == 1  # notes are never refused


def test_a_champion_comes_and_goes_in_every_kind_of_registry(shelf: Shelf) -> None:
    registry = shelf.module
    first = shelf.push(1, card=True)
    registry.promote(first)
    before = registry.current_champion()
    second = shelf.push(2, compared_with=before.digest)
    assert [v.version for v in shelf.open.versions()] == sorted([first, second])
    assert registry.promote().version == second
    for version, n in ((second, 2), (first, 1)):
        assert registry.current_champion().version == version
        shelf.open.fetch(version, shelf.path / "out")
        assert content(shelf.path / "out") == content(shelf.path / f"package-{n}")
        if n == 2:
            assert registry.rollback() == (second, first)


@pytest.mark.slow
def test_what_0_2_wrote_is_listed_fetched_promoted_and_rolled_back(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = shelf.module
    first = of_0_2(shelf, 1)
    registry.promote(first)
    before = registry.current_champion()
    second = of_0_2(shelf, 2, compared_with=before.digest)
    registry.promote(second)
    third = shelf.push(3, compared_with=registry.current_champion().digest)
    registry.promote(third)
    registry.print_versions()
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [first, second, third]
    assert all("roc_auc 0.75 (0.74 to 0.76)  commit c0ffee" in line for line in listed)
    assert registry.find(first[-8:]).version == first
    assert registry.rollback() == (third, second)
    assert registry.rollback() == (second, first)
    shelf.open.fetch(first, shelf.path / "out")
    assert content(shelf.path / "out") == content(shelf.path / "package-1")


def test_a_note_of_0_2_is_read(shelf: Shelf) -> None:
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha(b"{}"), "size": 2}
    if shelf.remote:
        shelf.remote.knows = None
    note = {"schemaVersion": 2, "artifactType": "application/vnd.rung.note.v1", "config": empty}
    note |= {"layers": [empty], "annotations": {f"{OWN}text": "[]"}}
    shelf.store("note-history", note, b"{}")
    assert shelf.open.get("history") == "[]"
    assert shelf.open.versions() == []


def test_what_somebody_else_keeps_there_is_no_version(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    version = shelf.push(1)
    if shelf.remote:
        shelf.remote.knows = None
    config = {"mediaType": f"{PACK}config.v1+json", "digest": sha(b"{}"), "size": 2}
    others: list[dict[str, Any]] = [
        {"schemaVersion": 2, "artifactType": f"{PACK}manifest.v1+json", "config": config},
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"},
        {"schemaVersion": 2, "config": config, "layers": [], "annotations": None},
    ]
    for name, manifest in zip(("latest", "z", "sha256-0123"), others, strict=True):
        shelf.store(name, manifest)
    assert [v.version for v in shelf.open.versions()] == [version]
    assert shelf.module.find().version == version
    with pytest.raises(UsageError, match="0 versions"):
        shelf.module.find("latest")
    shelf.module.print_versions()
    assert len(capsys.readouterr().out.splitlines()) == 1
    with pytest.raises(UsageError, match="not of a model"):
        shelf.open.fetch("latest", shelf.path / "out")


def sentence(registry: ModuleType, act: Callable[[], object]) -> str:
    """Do something that may end in a sentence, but in nothing else; return it."""
    try:
        act()
    except (UsageError, RefusedError) as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message
    assert len(message) < 6_000
    return message


def test_a_tag_that_was_moved_is_no_version_of_that_name(shelf: Shelf) -> None:
    registry = shelf.module
    first = shelf.push(1)
    second = shelf.push(2)
    shelf.store(first, shelf.open.store.manifest(second)[1])
    assert [v.version for v in shelf.open.versions()] == [second]
    for name in (first, first[-8:]):
        with pytest.raises(UsageError, match="0 versions"):
            registry.find(name)
    with pytest.raises(UsageError, match=f"no version {first}"):
        shelf.open.fetch(first, shelf.path / "out")


EVIL: list[Any] = [
    None, True, 7, -1, 1e308, "", "x", "\0", "\ud800", "../x", "a" * 5_000, [], {}, [None], [[]],
    {"a": None}, {"a": {}}, ["\0"], [{"digest": None}], "sha256:" + "0" * 64, "sha256:../../x",
    "sha512:" + "0" * 128,
]  # fmt: skip
PLACES = [
    ("annotations",),
    ("annotations", f"{STANDARD}version"),
    ("annotations", f"{STANDARD}created"),
    ("annotations", f"{OWN}package_digest"),
    ("annotations", f"{OWN}kind"),
    ("annotations", f"{OWN}metric"),
    ("artifactType",),
    ("layers",),
    ("layers", 0),
    ("layers", 0, "digest"),
    ("layers", 0, "size"),
    ("layers", 0, "annotations"),
    ("layers", 0, "annotations", TITLE),
    ("layers", 0, "annotations", f"{OWN}file"),
    ("layers", 1, "annotations", TITLE),
]


@pytest.mark.parametrize(
    ("shelf", "place"),
    [*(("folder", place) for place in PLACES), *(("remote", place) for place in PLACES[8:11])],
    ids=str,
    indirect=["shelf"],
)
def test_a_malformed_manifest_ends_in_a_sentence_and_writes_nothing(
    shelf: Shelf, place: tuple[Any, ...]
) -> None:
    registry = shelf.module
    version = shelf.push(1)
    whole = json.dumps(shelf.manifest(version))
    package_1 = content(shelf.path / "package-1")
    refused = 0
    for evil in EVIL:
        manifest = json.loads(whole)
        part = manifest
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = evil
        for tag in (version, "champion"):
            shelf.store(tag, manifest)
        fetch = lambda: shelf.open.fetch(version, shelf.path / "to/out")  # noqa: E731
        for act in (registry.current_champion, registry.find, registry.print_versions, fetch):
            refused += bool(sentence(registry, act))
        out = shelf.path / "to/out"
        assert not out.exists() or content(out) == package_1, evil
        assert not list((shelf.path / "to").glob(".*")), evil
    assert refused or place == ("artifactType",)
    assert not list(shelf.path.parent.glob("x"))


@pytest.mark.parametrize("shelf", ["folder"], indirect=True)
def test_what_a_registry_says_of_a_version_stays_within_its_line(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    version = shelf.push(1)
    manifest = shelf.manifest(version)
    for fact in ("metric", "value", "commit", "data_digest"):
        manifest["annotations"][f"{OWN}{fact}"] = "\n::error::x\x1b[2J\u202e"
    shelf.store(version, manifest)
    shelf.module.print_versions()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    for fact in ("metric", "value", "low", "high", "commit", "data_digest"):
        manifest["annotations"].pop(f"{OWN}{fact}", None)
    shelf.store(version, manifest)
    shelf.module.print_versions()
    assert "? ? (? to ?)  commit ?  data ?" in capsys.readouterr().out


@pytest.mark.parametrize("shelf", ["remote"], indirect=True)
def test_a_package_that_would_fill_the_disk_is_neither_fetched_nor_pushed(
    shelf: Shelf, module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    oci = module("adapters.registry_oci.registry")
    remote = module("oci_client").Remote
    version = shelf.push(1)
    whole = json.dumps(shelf.manifest(version))
    monkeypatch.setattr(remote, "download", lambda *_: pytest.fail("it was asked for"))
    for sizes, reason in ([oci.MAX_FILE + 1], "has"), ([oci.MAX_FILE] * 900, "a package of"):
        manifest = json.loads(whole)
        layer = json.dumps(manifest["layers"][0])
        for number, size in enumerate(sizes):
            more = json.loads(layer) | {"size": size}
            more["annotations"] = {TITLE: f"file-{number}"}
            manifest["layers"].append(more)
        shelf.store(version, manifest)
        with pytest.raises(UsageError, match=f"{reason}.* more than"):
            shelf.open.fetch(version, shelf.path / "out")
    monkeypatch.setattr(remote, "put", lambda *_: pytest.fail("it was sent"))
    monkeypatch.setattr(oci, "MAX_FILE", 3)
    with pytest.raises(UsageError, match=r"has .* more than 3"):
        shelf.push(2)


@pytest.mark.parametrize("shelf", ["folder"], indirect=True)
@pytest.mark.parametrize("titles", [("a", "a"), ("a", "a/b/c"), ("a/b/c", "a"), ("a/b/c", "a/b")])
def test_a_name_that_is_of_a_file_and_of_its_folder_is_refused(
    shelf: Shelf, titles: tuple[str, str]
) -> None:
    version = shelf.push(1)
    manifest = shelf.manifest(version)
    for title in titles:
        layer = json.loads(json.dumps(manifest["layers"][0]))
        manifest["layers"].append(layer | {"annotations": {TITLE: title}})
    shelf.store(version, manifest)
    with pytest.raises(UsageError, match="names a file twice"):
        shelf.open.fetch(version, shelf.path / "out")
    assert not (shelf.path / "out").exists()


BYTES = [b"", b"\xff\xfe", b"[]", b"null", b"7", b'"x"', b"{", b"[" * 100_000, b'{"a":' * 50_000]
BYTES += [b"9" * 5_000, b'{"layers": [' + b"{}," * 2_000 + b"{}]}"]


@pytest.mark.parametrize("shelf", ["remote"], indirect=True)
@pytest.mark.parametrize("text", BYTES, ids=lambda text: text[:12].decode("latin-1"))
def test_a_manifest_that_is_no_manifest_ends_in_a_sentence(shelf: Shelf, text: bytes) -> None:
    registry = shelf.module
    version = shelf.push(1)
    assert shelf.remote
    for tag in (version, "champion", "note-history"):
        shelf.remote.manifests[NAME, tag] = text
    acts = [registry.current_champion, lambda: shelf.open.fetch(version, shelf.path / "out")]
    for act in [*acts, lambda: shelf.open.get("history"), lambda: registry.history(shelf.open)]:
        with pytest.raises(UsageError) as error:
            act()
        assert "\n" not in str(error.value)
    assert not (shelf.path / "out").exists()


NOTES = ["null", "7", "{}", "[1]", '[{"version": 7}]', '[{"version": null}]', "[[]]", "[" * 99_999]


@pytest.mark.parametrize("shelf", ["folder"], indirect=True)
def test_a_history_that_is_none_ends_in_a_sentence(shelf: Shelf) -> None:
    registry = shelf.module
    version = shelf.push(1)
    registry.promote(version)
    for text in NOTES:
        shelf.open.set("history", text)
        for act in (registry.rollback, lambda: registry.history(shelf.open)):
            with pytest.raises(UsageError, match="not a list of champions"):
                act()
    shelf.open.set("history", '[{"version": "../../etc/x"}]')
    with pytest.raises(RefusedError, match="no champion"):
        registry.rollback()


def test_alarms_that_are_none_end_in_a_sentence(module: Import) -> None:
    monitoring = module("monitoring.alarms")
    alarm: dict[str, Any] = {"id": "a", "kind": "drift", "status": "decided", "reason": "r"}
    started = {"status": "started", "started": "2026-01-01T00:00:00+00:00", "outcome": None}
    good = [{}, {"d": {}}, {"d": {"drift": alarm}}, {"d": {"drift": alarm | started}}]
    for known in good:
        assert monitoring.parse_note(json.dumps(known)) == known
    old = {"d": {"violations": alarm | {"status": "told"}}}  # as 0.2 wrote it
    (read,) = monitoring.parse_note(json.dumps(old))["d"].values()
    assert read["status"] == "needs_attention"
    odd: list[Any] = [
        alarm | {"id": 7},
        {},
        None,
        alarm | {"status": None},
        alarm | {"status": "started"},
    ]
    odd += [alarm | started | {"started": when} for when in ("", "2026-01-01", None, 7)]
    odd += [alarm | started | {"outcome": []}]
    texts = [json.dumps({"d": {"drift": odd_alarm}}) for odd_alarm in odd]
    for text in [*NOTES, '{"a": 1}', '{"a": {"b": 1}}', *texts]:
        if text != "{}":
            with pytest.raises(monitoring.UsageError, match="is not a list of alarms"):
                monitoring.parse_note(text)


INDEXES: list[Any] = [
    [], None, {"manifests": None}, {"manifests": {}}, {"manifests": [None, 7, [], "x"]},
    {"manifests": [{"annotations": None}]}, {"manifests": [{"annotations": []}]},
    {"manifests": [{"annotations": {f"{STANDARD}ref.name": 7}, "digest": "sha256:0"}]},
    {"manifests": [{"annotations": {f"{STANDARD}ref.name": "champion"}}]},
    {"manifests": [{"annotations": {f"{STANDARD}ref.name": "champion"}, "digest": "../../../x"}]},
]  # fmt: skip


@pytest.mark.parametrize("shelf", ["folder"], indirect=True)
@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_an_index_that_is_none_ends_in_a_sentence(shelf: Shelf, index: Any) -> None:
    registry = shelf.module
    shelf.push(1)
    (shelf.path / "registry/index.json").write_text(json.dumps(index))
    for act in (registry.current_champion, registry.find, registry.print_versions):
        sentence(registry, act)
