"""`rung adopt` with repositories as people have them: what is read, carried, named, left alone."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import tomlkit
import yaml
from conftest import git, run, snapshot
from packaging.requirements import Requirement
from plumbum import local
from repositories import commit, notebook, write
from rung import RefusedError
from rung.adopt import (
    adoption,
    conda,
    detect,
    detect_target,
    notebooks,
    own_files,
    plan,
    pyproject,
    repository,
    requirements,
    resolve,
)
from rung.adopt.indexes import PackageIndex
from rung.git import untrusted_git_config

# Whom Git knows.
SOMEBODY = {"GIT_COMMITTER_NAME": "Somebody", "GIT_COMMITTER_EMAIL": "some@example.invalid"}

# --- what is run and read -------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a repository whose own settings start programs, each of which leaves a file."""
    folder = tmp_path / "hostile"
    files = {
        "a.txt": "a\r\n",
        ".gitattributes": "*.txt filter=theirs diff=theirs\n",
        "uv.lock": 'version = 1\nrequires-python = ">=3.11"\n',
        "uv.toml": "what uv cannot read",
        "setup.py": f"open('{tmp_path}/ran-setup', 'w')\n",
        "requirements.txt": "attrs\n",
    }
    commit(folder, "one", files)
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\ntouch "{tmp_path}/ran-$1"\n[ "$1" = filter ] && cat\nexit 0\n')
    program.chmod(0o755)
    python = folder / ".venv/bin/python"
    write(folder, {".venv/pyvenv.cfg": "home = /usr/bin\n", ".venv/.gitignore": "*\n"})
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\ntouch "{tmp_path}/ran-python"\nexit 1\n')
    python.chmod(0o755)
    settings = {
        "core.fsmonitor": "fsmonitor",
        "core.hooksPath": "hooks",
        "core.pager": "pager",
        "filter.theirs.clean": "filter",
        "filter.theirs.smudge": "filter",
        "diff.theirs.textconv": "textconv",
        "diff.external": "external",
        "gpg.program": "gpg",
    }
    for key, argument in settings.items():
        git(folder, "config", key, f"{program} {argument}")
    git(folder, "config", "filter.theirs.required", "true")
    return folder


def test_looking_at_a_repository_runs_nothing_that_its_settings_name(hostile: Path) -> None:
    os.utime(hostile / "a.txt", (1, 1))  # which Git now has to compare
    with local.env(**SOMEBODY), untrusted_git_config(hostile):
        inspected = repository.inspect(hostile)
        assert inspected.crlf_files() == ["a.txt"]
        assert inspected.read("a.txt") == b"a\r\n"
    assert [path.name for path in hostile.parent.glob("ran-*")] == []


@pytest.mark.slow
def test_pretending_to_adopt_a_repository_runs_nothing_of_it(hostile: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nname = Somebody\nemail = some@example.invalid\n")
    template = snapshot(tmp_path / "template")
    for command in ("init -q -b main", "add -A", "commit -q -m v1", "tag v1.0.0"):
        git(template, *command.split())
    words = ("adopt", ".", "--pretend", "--defaults", "--template", str(template))
    done = run(sys.executable, "-m", "rung", *words, cwd=hostile, home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing was changed." in done.stdout
    assert [path.name for path in tmp_path.glob("ran-*")] == []


def test_looking_at_a_repository_writes_nothing_into_it(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    commit(folder, "one", {"a.txt": "a\n"})
    os.utime(folder / "a.txt", (1, 1))  # what Git would note down
    before = (folder / ".git/index").read_bytes()
    with local.env(**SOMEBODY), untrusted_git_config(folder):
        repository.inspect(folder)
    assert (folder / ".git/index").read_bytes() == before


SECRET = "top secret, stored elsewhere"  # pragma: allowlist secret


@pytest.mark.parametrize(
    "name", ["README.md", "setup.py", "setup.cfg", "requirements.txt", "environment.yml", "a.ipynb"]
)
def test_a_link_that_leads_out_of_a_repository_is_not_followed(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    folder = tmp_path / "inside"
    contents = {
        "README.md": f"# {SECRET}\n\n{SECRET}.\n",
        "setup.py": f"setup(name='{SECRET}', install_requires=['secret'])\n",
        "setup.cfg": f"[metadata]\nname = {SECRET}\n[options]\ninstall_requires =\n    secret\n",
        "requirements.txt": "secret\n",
        "environment.yml": f"name: {SECRET}\ndependencies: [pandas, secret]\n",
        "a.ipynb": notebook("import secret"),
    }
    write(outside, {name: contents[name]})
    folder.mkdir()
    (folder / name).symlink_to(outside / name)
    answers = detect.detect_answers(folder, [name], "", ())
    collected = requirements.collect(folder, [name], {"secret"})
    assert "secret" not in str([guess.value for guess in answers.values()])
    assert collected.by_name == {}
    assert notebooks.imported_modules(notebooks.parse_code(folder, [name])) == set()


@pytest.mark.parametrize("line", ["-r ../more.txt", "-c ../more.txt", "-rsub/../../more.txt"])
def test_an_include_that_leads_out_of_a_repository_is_named_and_not_read(
    tmp_path: Path, line: str
) -> None:
    write(tmp_path, {"more.txt": "secret<2\n", "inside/requirements.txt": f"{line}\nsecret\n"})
    collected = requirements.collect(tmp_path / "inside", ["requirements.txt"])
    assert [str(requirement) for requirement in collected.by_name.values()] == ["secret"]
    assert "more.txt: is outside of the repository, and was not read" in " ".join(collected.notes)


def test_a_table_that_is_a_link_out_of_a_repository_is_named_and_not_read(tmp_path: Path) -> None:
    write(tmp_path, {"a.csv": "x,y\n1,2\n", "inside/b.csv": "x\n"})
    (tmp_path / "inside/a.csv").symlink_to("../a.csv")
    (tmp_path / "inside/c.csv").symlink_to("b.csv")
    inspected = repository.inspect(tmp_path / "inside")
    assert inspected.tables == ["b.csv", "c.csv"]
    assert inspected.linked_tables == ["a.csv"]


# --- requirements ---------------------------------------------------------------------------------


def test_requirements_below_the_top_are_carried_or_named(tmp_path: Path) -> None:
    files = {
        "src/requirements.txt": "pandas==1.5.3\n-r ../dev-requirements.txt\n-c constraints.txt\n",
        "src/constraints.txt": "pandas<3\nurllib3<2\n",
        "dev-requirements.txt": "hypothesis\n",
        "requirements/prod.in": "gunicorn\n",
        "requirements/prod.txt": "gunicorn==23.0.0\n",
        "requirements/sub/gpu.txt": "cupy\n",
        "requirements/readme.txt": "What these files are.\n",
        "deps/base.txt": "tqdm  # a bar\n",
        "pip.txt": "arrow\n",
        "env.yml": "dependencies: [click]\n",
        "deploy/env.yaml": "PORT: 80\n",
        "api/requirements.txt": "flask\n",
        "docs/environment.yml": "dependencies: [sphinx]\n",
        "jobs/setup.py": "",
        "freqs.txt": "not requirements\n",
    }
    write(tmp_path, files)
    collected = requirements.collect(tmp_path, [*files])
    assert {str(requirement) for requirement in collected.by_name.values()} == {
        "pandas<3,==1.5.3",
        "hypothesis",
        "gunicorn",
        "tqdm",
        "arrow",
        "click",
    }
    notes = "\n".join(collected.notes)
    for file in ("api/requirements.txt", "docs/environment.yml", "jobs/setup.py"):
        assert f"{file}: is about " in notes
    assert "uv add --group adopted -r api/requirements.txt" in notes
    assert "uv add --group adopted -r requirements/sub/gpu.txt" in notes
    assert "requirements/readme.txt: is not a list of requirements, and was not read" in notes
    assert "freqs.txt" not in notes
    assert "env.yaml" not in notes
    assert "urllib3<2" in notes


TOOLS = """\
[tool.hatch.envs.default]
dependencies = ["hatched"]
[tool.hatch.envs.lint]
extra-dependencies = ["linted>=1"]
[tool.pdm.dev-dependencies]
test = ["tested", "-e file:///srv/ours#egg=ours"]
[[tool.pdm.source]]
name = "own"
url = "https://me:word@own.example.invalid/simple"
[tool.setuptools.dynamic]
dependencies = { file = ["lists/main.txt"] }
optional-dependencies.plot = { file = "lists/plot.txt" }
[tool.poetry.dependencies]
python = "^3.8"
old = { version = "^0.8", python = "<3.7" }
exact = { version = "*", python = "~3.12.1 || >=3.14", platform = "linux" }
both = [{ version = "1", python = "<3.10" }, { version = "2", python = ">=3.10" }]
"""


def test_what_tools_write_into_a_pyproject_is_carried_with_its_conditions(tmp_path: Path) -> None:
    files = {
        "pyproject.toml": TOOLS,
        "lists/main.txt": "main\n",
        "lists/plot.txt": "plot\n",
        "pip.conf": "[global]\nextra-index-url = https://me:word@pip.example.invalid/simple\n",
        "setup.py": "setup(dependency_links=['https://me:word@old.example.invalid/a.zip'])\n",
        "setup.cfg": "[options]\ndependency_links =\n  https://older.example.invalid\n",
    }
    write(tmp_path, files)
    collected = requirements.collect(tmp_path, [*files])
    assert {name: str(requirement) for name, requirement in collected.by_name.items()} == {
        "hatched": "hatched",
        "linted": "linted>=1",
        "tested": "tested",
        "main": "main",
        "plot": "plot",
        "old": 'old<0.9,>=0.8; python_version < "3.7"',
        "exact": 'exact; (python_full_version >= "3.12.1" and python_version < "3.13" or '
        'python_version >= "3.14") and sys_platform == "linux"',
        "both": 'both==2; python_version >= "3.10"',
    }
    assert [(index.kind, index.url) for index in collected.indexes] == [
        ("extra", "https://own.example.invalid/simple"),
        ("extra", "https://pip.example.invalid/simple"),
    ]
    notes = "\n".join(collected.notes)
    assert "file:///srv/ours#egg=ours" in notes
    assert "setup.py: dependency_links (https://old.example.invalid/a.zip)" in notes
    assert "setup.cfg: dependency_links (https://older.example.invalid)" in notes
    assert "word" not in notes


@pytest.mark.parametrize(
    ("line", "relaxed"),
    [
        ("torch==1.9.0+cu111", ["torch>=1.9.0", "torch"]),
        ("torch===1.0-x", ["torch"]),
        ("torch~=1.9,<2", ["torch>=1.9", "torch"]),
        ("torch==1.9.*", ["torch>=1.9", "torch"]),
    ],
)
def test_a_pin_of_any_form_is_relaxed(line: str, relaxed: list[str]) -> None:
    requirement = Requirement(line)
    variants = [*map(str, resolve.relaxed_variants(requirement))]
    assert variants == [str(requirement), *relaxed]


@pytest.mark.parametrize(
    ("python", "floor"),
    [
        (">=3.12,<3.15", "3.12"),
        (">3.13", "3.13"),
        ("=3.14", "3.14"),
        ("=3.14.*", "3.14"),
        ("=3.12.4=h1_cpython", "3.12.4"),
        ("^3.13", "3.13"),
        (">=3.8", None),
        ("myenv", None),
    ],
)
def test_a_python_that_is_newer_than_the_templates_counts_however_it_is_written(
    python: str, floor: str | None
) -> None:
    assert pyproject.newer_python(python) == floor


def test_requirements_of_a_part_are_carried_if_there_are_no_others(tmp_path: Path) -> None:
    write(tmp_path, {"app/requirements.txt": "flask\n", "app/more/requirements.txt": "numpy\n"})
    collected = requirements.collect(
        tmp_path, ["app/requirements.txt", "app/more/requirements.txt"]
    )
    assert [*collected.by_name] == ["flask"]
    assert "app/more/requirements.txt: is about app/more/ alone" in collected.notes[0]


def test_what_a_setup_file_computes_is_named_and_what_it_reads_is_carried(tmp_path: Path) -> None:
    write(tmp_path, {"setup.py": "setup(install_requires=get('x'), tests_require=['attrs'])\n"})
    collected = requirements.collect(tmp_path, ["setup.py"])
    assert [*collected.by_name] == ["attrs"]
    assert collected.notes[0].startswith("setup.py: install_requires is computed by get('x')")
    write(tmp_path, {"reqs/base.txt": "flask\n"})
    write(tmp_path, {"setup.cfg": "[options]\ninstall_requires = file: reqs/base.txt\n"})
    write(tmp_path, {"setup.py": "setup(install_requires=open('reqs/base.txt').readlines())\n"})
    collected = requirements.collect(tmp_path, ["setup.py", "setup.cfg", "reqs/base.txt"])
    assert [*collected.by_name] == ["flask"]
    assert collected.notes == []


def test_a_requirement_that_is_a_folder_is_named_and_never_anothers_package(tmp_path: Path) -> None:
    files = {
        "pyproject.toml": '[project]\ndependencies = ["ours", "flask"]\n'
        '[tool.uv.sources]\nours = { path = "libs/ours" }\n',
        "requirements.txt": "here @ ./libs/here\nthere @ git+file:///srv/there\n",
    }
    write(tmp_path, files)
    collected = requirements.collect(tmp_path, [*files])
    assert [*collected.by_name] == ["flask"]
    assert [note.partition(",")[0] for note in collected.notes] == [
        "pyproject.toml: ours is from libs/ours",
        "requirements.txt: here is from ./libs/here",
        "requirements.txt: there is from git+file:///srv/there",
    ]


def test_an_index_is_carried_without_its_password(tmp_path: Path) -> None:
    files = {
        "requirements.txt": "--extra-index-url https://me:word@a.example.invalid/simple\n"
        "-f https://b.example.invalid/wheels.html\n--find-links ../wheels\n"
        "-i https://pypi.org/simple\n--extra-index-url=https://${TOKEN}@a.example.invalid/simple\n",
        "Pipfile": '[[source]]\nurl = "https://c.example.invalid/simple"\n',
        "pyproject.toml": '[[tool.poetry.source]]\nname = "d"\n'
        'url = "https://d.example.invalid/simple"\n',
        "uv.toml": 'extra-index-url = ["https://e.example.invalid/simple"]\n',
    }
    write(tmp_path, files)
    collected = requirements.collect(tmp_path, [*files])
    assert {(index.kind, index.url) for index in collected.indexes} == {
        ("extra", "https://a.example.invalid/simple"),
        ("find-links", "https://b.example.invalid/wheels.html"),
        ("default", "https://c.example.invalid/simple"),
        ("extra", "https://d.example.invalid/simple"),
        ("extra", "https://e.example.invalid/simple"),
    }
    assert "../wheels" in " ".join(collected.notes)
    text, _ = pyproject.merge_pyproject(
        (
            "[project]\n[dependency-groups]\n[tool.ruff]\n[tool.uv]\ndefault-groups = []\n"
            '[tool.uv.build-backend]\nmodule-name = "x"\n'
        ),
        "",
        "",
        {},
        resolve.Choice(indexes=collected.indexes),
    )
    uv = tomlkit.parse(text).unwrap()["tool"]["uv"]
    assert uv["find-links"] == ["https://b.example.invalid/wheels.html"]
    assert {"name": "a-example-invalid", "url": "https://a.example.invalid/simple"} in uv["index"]
    assert {"c-example-invalid"} == {entry["name"] for entry in uv["index"] if entry.get("default")}
    assert "word" not in text


def test_a_conda_package_is_carried_only_if_pypi_has_the_same() -> None:
    listed = [
        *("python=3.8", "pytorch=1.9", "pandas", "librosa>=0.9", "mamba", "git", "faiss-gpu"),
        *("cudatoolkit=10.2", "tidyverse", "mkl", {"pip": ["attrs", "-r requirements.txt"]}),
    ]
    environment = conda.read_environment({"dependencies": listed}, {"librosa", "git"})
    assert environment.requirements == ["torch==1.9.*", "pandas", "librosa>=0.9"]
    assert environment.pip_lines == ["attrs", "-r requirements.txt"]
    assert environment.has_cuda
    notes = "\n".join(environment.notes)
    assert "mamba, git, faiss-gpu, cudatoolkit: not from PyPI" in notes
    assert "tidyverse: not adopted, as no code imports it" in notes


# --- what uv says ---------------------------------------------------------------------------------


def wheel(folder: Path, name: str, version: str, requires: Sequence[str] = ()) -> None:
    """Write a wheel without code into an index."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    files = {
        "METADATA": metadata,
        "WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file, text in files.items():
            archive.writestr(f"{info}/{file}", text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()
            record += f"{info}/{file},sha256={digest.rstrip('=')},{len(text)}\n"
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    path = folder / name / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
    (path.parent / "index.html").write_text(f'<a href="{path.name}">{path.name}</a>')


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which uv remembers what it knows of this Python."""
    return tmp_path_factory.mktemp("uv-cache")


@pytest.fixture
def index(tmp_path: Path, uv_cache: Path) -> Iterator[Path]:
    """Return a folder that is uv's only index, with packages such as PyPI has."""
    folder = tmp_path / "index"
    cuda = [f"nvidia-{part}" for part in ("cublas", "cudnn", "nccl", "nvtx")]
    for part in cuda:
        wheel(folder, part, "1.0")
    wheel(folder, "torch", "2.9", cuda)
    wheel(folder, "lightning", "2.0", ["torch"])
    wheel(folder, "xgboost", "3.0", cuda[:1])
    wheel(folder, "plain", "1.0")
    environment = {
        "UV_DEFAULT_INDEX": folder.as_uri(),
        "UV_CACHE_DIR": str(uv_cache),
        "UV_HTTP_RETRIES": "0",
        "UV_PYTHON": sys.executable,
    }
    with local.env(**environment):
        yield folder


def resolved(folder: Path, *lines: str, **options: object) -> resolve.Resolution:
    """Lock a project with these requirements."""
    folder.mkdir()
    template = (
        '[project]\nname = "x"\nversion = "0"\nrequires-python = ">=3.11"\n'
        "[dependency-groups]\ndev = []\n[tool.ruff]\n[tool.uv]\ndefault-groups = []\n"
    )

    def text(choice: resolve.Choice) -> str:
        return pyproject.merge_pyproject(template, "", "", {}, choice)[0]

    wanted = {Requirement(line).name: Requirement(line) for line in lines}
    return resolve.resolve(folder, wanted, text, **options)  # type: ignore[arg-type]


def test_a_version_that_conda_pinned_does_not_become_cuda(index: Path, tmp_path: Path) -> None:
    done = resolved(tmp_path / "x", "torch==1.9.*", "xgboost==1.5", "plain", "lightning==1.0")
    assert [str(requirement) for requirement in done.choice.requirements] == [
        "xgboost>=1.5",
        "plain",
    ]
    assert {item.requirement.name for item in done.choice.unresolved} == {"torch", "lightning"}
    assert "brings CUDA" in done.choice.unresolved[0].reason
    assert "cudnn" not in done.lock.decode()
    assert "torch==1.9.*  # what this Python has a wheel of brings CUDA" in done.pyproject


def test_cuda_that_pip_would_have_installed_stays_and_condas_is_not_added(
    index: Path, tmp_path: Path
) -> None:
    as_it_is = resolved(tmp_path / "pip", "torch>=2", "plain")
    assert [str(requirement) for requirement in as_it_is.choice.requirements] == [
        "torch>=2",
        "plain",
    ]
    of_conda = resolved(tmp_path / "conda", "torch>=2", "plain", without_cuda={"torch"})
    assert [str(requirement) for requirement in of_conda.choice.requirements] == ["plain"]
    assert "nvidia" not in of_conda.lock.decode()


def test_an_index_that_cannot_be_read_is_named_with_uvs_reason(index: Path, tmp_path: Path) -> None:
    closed = PackageIndex("extra", "http://127.0.0.1:9/simple", "requirements.txt")
    page = PackageIndex("find-links", "http://127.0.0.1:9/wheels", "requirements.txt")
    done = resolved(tmp_path / "x", "plain", indexes=[closed, page])
    assert [str(requirement) for requirement in done.choice.requirements] == ["plain"]
    assert len(done.changes) == 2
    assert "Connection refused" in done.changes[0]
    assert "127.0.0.1:9" not in done.pyproject


def test_an_index_is_searched_before_pypi(index: Path, tmp_path: Path) -> None:
    wheel(index.parent / "other", "plain", "0.1")
    other = PackageIndex("extra", (index.parent / "other").as_uri(), "requirements.txt")
    kept = resolved(tmp_path / "kept", "plain", indexes=[other])
    assert kept.choice.indexes == [other]
    assert 'version = "0.1"' in kept.lock.decode()


def test_a_package_is_not_built_where_nothing_may_run(index: Path, tmp_path: Path) -> None:
    (index / "source").mkdir()
    (index / "source/index.html").write_text('<a href="source-1.0.tar.gz">source-1.0.tar.gz</a>')
    (index / "source/source-1.0.tar.gz").write_bytes(b"not even an archive")
    done = resolved(tmp_path / "x", "source", "plain", may_build=False)
    assert [str(requirement) for requirement in done.choice.requirements] == ["plain"]
    assert done.choice.unresolved[0].reason == "no wheel of it is compatible with the others"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "error: Request failed after 3 retries in 13.0s\n  cause: Failed to download "
            "`https://example.invalid/cpython`\n  cause: dns error\n  cause: no such host\n",
            "Failed to download `https://example.invalid/cpython`: no such host",
        ),
        (
            "error: No solution found when resolving dependencies\n"
            "  cause: Because there is no version of a==99 and\n    x depends on it, that is all.",
            "No solution found when resolving dependencies: "
            "Because there is no version of a==99 and x depends on it, that is all",
        ),
        (
            "error: No interpreter found for Python >=3.14\n\nhint: downloads are set to 'never'\n",
            "No interpreter found for Python >=3.14: downloads are set to 'never'",
        ),
        ("something else\n", "something else"),
    ],
)
def test_uvs_own_reason_is_told(message: str, reason: str) -> None:
    assert resolve.failure(message) == reason


def test_a_python_that_cannot_be_had_is_refused_with_uvs_reason(
    index: Path, tmp_path: Path
) -> None:
    text = '[project]\nname = "x"\nversion = "0"\nrequires-python = ">=3.99"\n'
    with pytest.raises(RefusedError, match=r"incompatible with .*>=3\.99"):
        resolve.resolve(tmp_path, {}, lambda choice: text)


@pytest.mark.parametrize(
    ("files", "python", "old"),
    [
        ({"pyproject.toml": '[project]\nrequires-python = "<3.11"\n'}, "<3.11", True),
        ({"setup.py": "setup(python_requires='==3.9.*')\n"}, "==3.9.*", True),
        ({"setup.cfg": "[options]\npython_requires = <=3.10\n"}, "<=3.10", True),
        ({"runtime.txt": "python-3.8.12\n"}, "3.8", True),
        ({"conda.yaml": "dependencies: [python=3.7]\n"}, "=3.7", True),
        ({"pyproject.toml": '[project]\nrequires-python = ">=3.12,<3.15"\n'}, None, False),
    ],
)
def test_a_python_that_no_project_runs_on_is_told_wherever_it_stands(
    tmp_path: Path, files: dict[str, str], python: str | None, old: bool
) -> None:
    write(tmp_path, dict(files))
    file = next(iter(files))
    expected = [f"{file} asks for {python}; a project needs 3.11 or newer"] if old else []
    assert adoption.python_note(tmp_path) == expected


# --- the column to predict ------------------------------------------------------------------------

TARGETS = {
    'train_x = train.drop(["sold"], axis=1)': "",
    'train_y = train[["sold"]]': "",
    'X, y = df.drop("sold", axis=1), df["sold"]': "",
    'a, b, c, d = train_test_split(df.drop(columns=["sold"]), df["sold"])': "",
    "model.fit(df[columns], df.sold)": "",
    'y = np.array(df["sold"])': "",
    'y: pd.Series = df.loc[:, "sold"]': "",
    'target_column_name = "sold"': "",
    'def train(path, *, target="sold"): pass': "",
    'parser.add_argument("--target-column", default="sold")': "",
    'class Config:\n    TARGET: str = "sold"': "",
    'settings = {"label": "sold"}': "",
    'LogisticRegression(labelCol="sold")': "",
    'smf.ols("sold ~ size + id", data=df)': "",
    'features = [name for name in df.columns if name != "sold"]': "",
    'y = df.get_column("sold")': "",
    'TabularPredictor(label="sold").fit(train)': "",
    'aml.train(x=names, y="sold", training_frame=train)': "",
    'features = list(df.columns)\nfeatures.remove("sold")': "",
    'features = set(df.columns) - {"sold"}': "",
    'features = set(df.columns) - set(["sold"])': "",
    'X = df[df.columns.difference(["sold"])]': "",
    'X = df.drop(labels="sold", axis=1)': "",
    "y = df.iloc[:, -1]": "by its place, which is a guess",
    "X = df.iloc[:, :-1].values": "by its place, which is a guess",
    "y = data[:, 2]": "by its place, which is a guess",
    "y = df[df.columns[-1]]": "by its place, which is a guess",
}


@pytest.mark.parametrize("code", TARGETS)
def test_the_column_to_predict_is_found_however_code_names_it(code: str, tmp_path: Path) -> None:
    write(tmp_path, {"t.csv": "id;size;sold\n1;2;3\n"})
    unit = notebooks.CodeUnit("train.py", None, ast.parse(code))
    _, target = detect_target.detect_data(tmp_path, ["t.csv"], [unit])
    assert target is not None
    assert target.value == "sold"
    assert target.reason.endswith(TARGETS[code] or f"line {target.reason[-1]}")


@pytest.mark.parametrize(
    "code",
    [
        'sns.barplot(x="id", y="size")',
        'plt.plot(a, label="size")',
        'plot_estimator(model, label="size")',
        'st.number_input(label="size")',
        'names.remove("size")',
        'label_encoder = LabelEncoder().fit(df["size"])',
        'df = df.drop("id", axis=1)',
        "print(df.size)",
    ],
)
def test_a_column_that_code_only_looks_at_is_not_the_target(code: str, tmp_path: Path) -> None:
    write(tmp_path, {"t.csv": "id;size;sold\n1;2;3\n"})
    unit = notebooks.CodeUnit("train.py", None, ast.parse(code))
    assert detect_target.detect_data(tmp_path, ["t.csv"], [unit])[1] is None


def test_a_variable_of_one_cell_names_the_column_in_another(tmp_path: Path) -> None:
    write(tmp_path, {"t.csv": "id,sold\n1,2\n", "a.ipynb": notebook('c = "sold"', "y = df[c]")})
    code = [*notebooks.parse_code(tmp_path, ["a.ipynb"])]
    target = detect_target.detect_data(tmp_path, ["t.csv"], code)[1]
    assert target == detect.Guess("sold", "a.ipynb, cell 2")


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("params.yaml", "base:\n  target_col: sold\n", "params.yaml, target_col"),
        ("schema.yaml", "TARGET_COLUMN:\n  name: sold\n", "schema.yaml, TARGET_COLUMN"),
        ("config.json", '{"data": {"target": "sold"}}', "config.json, target"),
        ("conf/train.toml", '[data]\nlabel = "sold"\n', "conf/train.toml, label"),
        ("model.R", "library(x)\nm <- lm(sold ~ ., data = d)\n", "model.R, line 2"),
        ("model.Rmd", "y <- d$sold\n", "model.Rmd, line 1"),
    ],
)
def test_settings_and_code_in_r_name_the_column_too(
    name: str, text: str, place: str, tmp_path: Path
) -> None:
    write(tmp_path, {"t.csv": "id,sold\n1,2\n", name: text})
    target = detect_target.detect_data(tmp_path, ["t.csv"], [], [name])[1]
    assert target == detect.Guess("sold", place)


def test_a_table_of_which_only_a_pointer_is_here_is_skipped_and_named(tmp_path: Path) -> None:
    files = {
        "train.py": 'df = pd.read_csv("annexed.csv")\ny = df["sold"]\n',
        "here.csv": "id,sold\n1,2\n",
        "stored.csv": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "tracked.parquet.dvc": "outs: []\n",
        "model.pkl.dvc": "outs: []\n",
    }
    write(tmp_path, files)
    (tmp_path / "annexed.csv").symlink_to(".git/annex/objects/x/y.csv")
    inspected = repository.inspect(tmp_path)
    assert inspected.tables == ["here.csv"]
    assert inspected.absent_tables == ["annexed.csv", "stored.csv", "tracked.parquet"]
    code = [*notebooks.parse_code(tmp_path, ["train.py"])]
    assert detect_target.detect_data(tmp_path, [*inspected.tables, "annexed.csv"], code) == (
        "here.csv",
        detect.Guess("sold", "train.py, line 2"),
    )
    notes = own_files.absent_tables(inspected.absent_tables, inspected.names)
    assert "annexed.csv: only a pointer to it is here" in notes[0]
    assert "git lfs pull" in notes[1]
    assert "(dvc pull), then uv run ml data use tracked.parquet --target COLUMN" in notes[2]


def test_a_python_version_that_the_project_will_have_is_tried_with_its_lock(tmp_path: Path) -> None:
    write(tmp_path, {".python-version": "3.14\n"})
    inspected = repository.inspect(tmp_path)
    assert adoption.python_request(inspected, plan.FilePlan()) == b"3.14\n"
    aside = plan.FilePlan(moved={".python-version": "before.python-version"})
    assert adoption.python_request(inspected, aside) == b""


# --- files of their own ---------------------------------------------------------------------------


def test_a_gitlab_pipeline_of_their_own_stays_and_the_job_that_starts_ours_is_named() -> None:
    theirs = "stages: [prepare, ship]\nbuild:\n  script: !reference [.x, script]\n"
    note = own_files.kept_file_note(".gitlab-ci.yml", ".gitlab-ci.yml", "abc", theirs, 0)
    assert "GitLab runs none of the project's pipelines" in note
    assert "git show abc:.gitlab-ci.yml > .gitlab-ci.rung.yml" in note
    job = yaml.safe_load(note.partition("add this job to yours: ")[2])["rung"]
    assert job["stage"] == "prepare"
    assert job["trigger"]["include"] == ".gitlab-ci.rung.yml"
    assert "stage: test" in own_files.child_pipeline("build: {script: x}\n")
    at_level_1 = own_files.kept_file_note(".gitlab-ci.yml", ".gitlab-ci.yml", "abc", theirs, 1)
    assert "CI/CD configuration file: .gitlab-ci.rung.yml" in at_level_1


def test_a_file_that_hides_one_of_ours_comes_with_the_line_that_brings_ours() -> None:
    tox = own_files.kept_file_note("tox.ini", "tox.ini", "abc", "", 0)
    assert "git show abc:tox.ini > tox.rung.ini, and uv run tox -c tox.rung.ini" in tox
    assert own_files.check_command(["clean"]) == "make check"
    assert "uv run pytest" in own_files.check_command(["test"])
    note = own_files.kept_targets_note("Makefile", ["test", "clean"])
    assert note.endswith("of the project: uv run pytest (instead of make test)")
    moved = own_files.moved_pipeline_note({"dvc.yaml": "dvc.before.yaml"})
    assert "uv run dvc repro pipeline/dvc.yaml" in moved[0]
    later = own_files.later_clashes(["Dockerfile", "dvc.yaml", "train.py"], ["tox.ini"])
    assert later[0].startswith("Dockerfile, dvc.yaml: yours; level 1 brings its own")


def test_a_workflow_of_a_name_that_ours_call_makes_room_and_still_runs() -> None:
    name = ".github/workflows/checks.yml"
    planned = plan.plan_files({name: b"ours"}, {name: b"theirs"}, [name], ())
    assert planned.moved == {name: ".github/workflows/checks.before.yml"}


def test_a_module_that_hides_one_that_a_project_needs_is_named() -> None:
    names = ["numpy/__init__.py", "src/polars.py", "typing.py", "mlflow/Dockerfile", "a/yaml.py"]
    notes = own_files.shadowing_modules(names, {"numpy", "polars", "typing", "mlflow", "yaml"})
    assert [note.split(",")[0] for note in notes] == [
        "numpy/__init__.py hides numpy",
        "src/polars.py hides polars",
        "typing.py hides typing",
    ]


def test_packages_that_are_not_installed_any_more_are_named() -> None:
    names = ["src/__init__.py", "src/utils.py", "tests/__init__.py", "one/__init__.py"]
    notes = own_files.uninstalled_packages(names, ["setup.py"])
    assert notes[0].startswith("one/: not installed any more")
    assert own_files.uninstalled_packages(names, []) == []
    assert own_files.uninstalled_packages(names[:2], ["setup.py"]) == []


def test_how_to_run_tests_of_their_own_is_told() -> None:
    excluded = plan.tool_exclusions(["tests/test_a.py", "tests/old/test_b.py"], ["tests/x.py"], "x")
    notes = own_files.own_tests(excluded["pytest"])
    assert "uv run pytest -o addopts= tests/old tests/test_a.py runs them" in notes[0]
    assert own_files.own_tests(["--noconftest"]) == []


def test_tests_that_are_a_package_do_not_hide_what_is_installed() -> None:
    excluded = plan.tool_exclusions(["tests/__init__.py", "joblib.py"], [], "x")
    assert "--import-mode=importlib" in excluded["pytest"]
