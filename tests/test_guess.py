"""What `rung adopt` reads from files: names, targets, requirements; and how it merges them."""

from __future__ import annotations

import ast
import os
import subprocess
import textwrap
from pathlib import Path

import pytest
import tomlkit
from conftest import ROOT
from packaging.requirements import Requirement
from repositories import notebook, write
from rung import UsageError
from rung.adopt import (
    detect,
    detect_target,
    merge_files,
    notebooks,
    plan,
    pyproject,
    requirements,
    resolve,
)
from rung.adopt.detect import Guess
from rung.adopt.requirements.constraints import standard_constraint

TEMPLATE = ROOT / "template"


def piece(code: str) -> notebooks.CodeUnit:
    return notebooks.CodeUnit("train.py", None, ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        'y = df["sold"]',
        "y_train = train.sold.values",
        'y = np.log(df["sold"].fillna(0))',
        'X, y = df.drop(columns=["id", "sold"]), None\nlabels = df[["sold"]]',
        'X = df.drop("sold", axis=1).fillna(0)',
        'labels = df.pop("sold")',
        'TARGET = "sold"',
        'target_col = "sold"\ny = df[target_col]',
    ],
)
def test_code_tells_what_it_predicts(code: str, tmp_path: Path) -> None:
    write(tmp_path, {"t.csv": "id;size;sold\n1;2;3\n", "other.csv": "a,b\n" + "1,2\n" * 99})
    file, column = detect_target.detect_data(tmp_path, ["other.csv", "t.csv"], [piece(code)])
    assert column is not None
    assert (file, column.value) == ("t.csv", "sold")


def test_a_table_that_code_reads_goes_before_a_larger_one(tmp_path: Path) -> None:
    write(tmp_path, {"raw/small.csv": "y\n1\n", "large.csv": "y\n" + "1\n" * 99})
    code = piece('df = pd.read_csv("..\\\\raw\\\\small.csv")\ny = df["y"]')
    assert (
        detect_target.detect_data(tmp_path, ["large.csv", "raw/small.csv"], [code])[0]
        == "raw/small.csv"
    )
    assert detect_target.detect_data(tmp_path, ["large.csv", "raw/small.csv"], [])[0] == "large.csv"


def test_a_column_of_parquet_is_found(tmp_path: Path) -> None:
    import polars as pl

    pl.DataFrame({"size": [1], "sold": [2]}).write_parquet(tmp_path / "t.parquet")
    assert detect_target.has_column(tmp_path / "t.parquet", "sold")
    assert not detect_target.has_column(tmp_path / "t.parquet", "other")


def test_cells_are_read_whatever_ipython_adds(tmp_path: Path) -> None:
    cells = [
        "# Title",
        "%%bash\nls",
        "!pip install x\n%time y = 1\ndf?",
        "if x:\n    !ls",
        "print 1",
    ]
    write(tmp_path, {"a.ipynb": notebook(*cells), "broken.ipynb": "{", "empty.ipynb": "[]"})
    parsed = [*notebooks.parse_code(tmp_path, ["a.ipynb", "broken.ipynb", "empty.ipynb"])]
    assert [cell.cell for cell in parsed] == [3, 4]  # print 1 is Python 2


@pytest.mark.parametrize(
    ("constraint", "standard"),
    {
        "^1.2.3": ">=1.2.3,<2",
        "^0.2": ">=0.2,<0.3",
        "^0.0.3": ">=0.0.3,<0.0.4",
        "~1.2": ">=1.2,<1.3",
        "~1": ">=1,<2",
        "*": "",
        "1.2.*": "==1.2.*",
        "1.2.3": "==1.2.3",
        ">=1, <2": ">=1,<2",
        "~=1.4": "~=1.4",
    }.items(),
)
def test_a_version_of_poetry_is_one_of_the_standard(constraint: str, standard: str) -> None:
    assert standard_constraint(constraint) == standard


REQUIREMENTS = {
    "pandas == 1.3.0  # a comment": "pandas==1.3.0",
    "tqdm>=4 ; python_version < '4' --hash=sha256:00": 'tqdm>=4; python_version < "4"',
    "numpy @ file:///tmp/build/80754af9/numpy": "numpy",
    "-e git+https://example.invalid/a.git@v1#egg=thing": "thing @ git+https://example.invalid/a.git@v1",
    "uvicorn[standard]": "uvicorn[standard]",
    "sklearn": "scikit-learn",
    "dask \\\n  >=2024": "dask>=2024",
}


@pytest.mark.parametrize("line", REQUIREMENTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_line_of_pip_is_carried(line: str, encoding: str, tmp_path: Path) -> None:
    lines = f"-e .\n{line}\n--index-url https://example.invalid\n".replace("\n", "\r\n")
    write(tmp_path, {"requirements.txt": lines.encode(encoding)})
    collected = requirements.collect(tmp_path, ["requirements.txt"])
    assert [str(requirement) for requirement in collected.by_name.values()] == [REQUIREMENTS[line]]
    assert [index.url for index in collected.indexes] == ["https://example.invalid"]


def test_each_kind_of_file_is_read_and_the_stricter_of_two_is_carried(tmp_path: Path) -> None:
    files = {
        "requirements.txt": "-r requirements/more.txt\npandas\n",
        "requirements/more.txt": "pip_one==1\n-r ../requirements.txt\n",
        "setup.py": "from setuptools import setup\nsetup(install_requires=['setup_one>=1'],"
        "extras_require={'x': ['setup_two']})\n",
        "setup.cfg": "[options]\ninstall_requires =\n    cfg_one\n    pandas>=2\n",
        "environment.yml": "dependencies:\n- python=3.8\n- conda-forge::conda_one=1.2\n- mkl\n"
        "- pytorch\n- plotly==1.3=py39_0\n- pip:\n  - pip_two~=2.0\n",
        "Pipfile": '[packages]\npipenv_one = {version = "~=1.0", extras = ["x"]}\n'
        'local = {path = "."}\n',
        "pyproject.toml": '[project]\ndependencies = ["project_one"]\n'
        '[dependency-groups]\ndev = ["group_one", {include-group = "x"}]\n'
        '[tool.poetry.group.x.dependencies]\npoetry_one = {git = "https://example.invalid/x"}\n',
    }
    write(tmp_path, dict(files))
    collected = requirements.collect(tmp_path, [*files], {"conda_one"})
    assert {str(requirement) for requirement in collected.by_name.values()} == {
        *("pip_one==1", "setup_one>=1", "setup_two", "cfg_one", "pandas>=2", "conda_one==1.2.*"),
        *("torch", "plotly==1.3", "pip_two~=2.0", "pipenv_one[x]~=1.0", "project_one", "group_one"),
        "poetry_one @ git+https://example.invalid/x",
    }
    assert collected.notes == ["Pipfile: local is a local file, and was not adopted"]


@pytest.mark.parametrize(
    ("theirs", "ours", "may"),
    [
        ("a>=1", "a>=2", True),
        ("a==1", "a>=2", False),
        ("a==2.5", "a>=2", True),
        ("a<2", "a>=2", False),
    ],
)
def test_what_cannot_go_together_is_known(theirs: str, ours: str, may: bool) -> None:
    assert requirements.are_compatible(Requirement(theirs), Requirement(ours)) is may


def test_a_requirement_is_loosened_step_by_step() -> None:
    requirement = Requirement("a[x]==1.2.*,>1.1,<2; python_version > '3'")
    marker = '; python_version > "3"'
    variants = [f"a[x]<2,==1.2.*,>1.1{marker}", f"a[x]>1.1,>=1.2{marker}", f"a[x]{marker}"]
    assert [str(variant) for variant in resolve.relaxed_variants(requirement)] == variants
    assert [str(variant) for variant in resolve.relaxed_variants(Requirement("a"))] == ["a"]


@pytest.mark.parametrize(
    ("name", "package"),
    {
        "Churn-Model": "churn_model",
        "2024 sales": "project_2024_sales",
        "json": "project_json",
        "numpy": "project_numpy",
        "there": "there_model",
        "data science für alle!": "data_science_f_r_alle",
    }.items(),
)
def test_a_package_has_a_name_that_is_free(name: str, package: str, tmp_path: Path) -> None:
    files = ["src/there/__init__.py"]
    guess = Guess(name, "it says so")
    assert detect.package_name(guess, tmp_path, files, {"numpy", "src"}).value == package


@pytest.mark.parametrize(
    ("readme", "title", "sentence"),
    [
        ("# A **title** :tada:\n\n[![b](x)](y)\n\nSays [this](z).\n", "A title", "Says this."),
        ("Title\n=====\nSays this.\n", "Title", "Says this."),
        ("Says this, in a sentence.\n\nMore.\n", "", "Says this, in a sentence."),
        ("# Only a title\n", "Only a title", ""),
        ("", "", ""),
    ],
)
def test_a_readme_has_a_title_and_a_paragraph(
    readme: str, title: str, sentence: str, tmp_path: Path
) -> None:
    write(tmp_path, {"README.md": readme})
    assert detect.title_and_summary(tmp_path, ["README.md"]) == (title, sentence)


def test_a_makefile_has_their_targets_and_the_rest_of_ours(tmp_path: Path) -> None:
    theirs = "X := a:b\nall: test\ntest clean: ; echo mine\n"
    text, own = merge_files.merge_makefile((TEMPLATE / "Makefile").read_text(), theirs)
    assert text.startswith(theirs)
    assert set(own) == {"test", "clean"}
    (tmp_path / "Makefile").write_text(text)
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # this may run under `make test`
    env = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(["make", "-n"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("echo mine\n", "")


@pytest.mark.parametrize("indent", ["", "  ", "      "])
def test_hooks_of_theirs_come_after_ours(indent: str) -> None:
    listed = "- repo: https://example.invalid/x\n  rev: v1\n  hooks: []\n"
    theirs = f"fail_fast: true\nrepos:\n{textwrap.indent(listed, indent)}"
    text, whole = merge_files.merge_pre_commit(
        (TEMPLATE / ".pre-commit-config.yaml").read_text(), theirs, [r"old/", r"a\ b\.py$"]
    )
    read = merge_files.read_mapping(text)
    assert whole
    assert read["fail_fast"] is True
    assert [repo["repo"] for repo in read["repos"]] == ["local", "https://example.invalid/x"]


def test_hooks_that_cannot_be_read_are_not_mixed() -> None:
    ours = (TEMPLATE / ".pre-commit-config.yaml").read_text()
    assert merge_files.merge_pre_commit(ours, "repos: [\n", [])[1] is False


def test_settings_of_tools_that_are_theirs_alone_come_along() -> None:
    ours = '[project]\nname = "a"\n[dependency-groups]\ndev = []\n[tool.uv]\ndefault-groups = []\n'
    ours += "[tool.ruff]\nline-length = 100\n"
    theirs = (
        '[project]\nname = "b"\nlicense = "Proprietary!"\nkeywords = ["k"]\nscripts = {x = "y:z"}\n'
    )
    theirs += "[tool.ruff]\nline-length = 79\n[tool.black]\nfast = true  # why not\n"
    theirs += '[tool.uv.sources]\nx = { git = "https://example.invalid" }\n[tool.hatch.build]\n'
    text, dropped = pyproject.merge_pyproject(
        ours, theirs, ">=3.12", {"ruff": ["./a b.py"]}, resolve.Choice()
    )
    read = tomlkit.parse(text).unwrap()
    assert read["project"] == {"name": "a", "keywords": ["k"], "requires-python": ">=3.12"}
    assert read["tool"]["ruff"] == {
        "line-length": 100,
        "src": ["src"],
        "extend-exclude": ["./a b.py"],
    }
    assert read["tool"]["black"] == {"fast": True}
    assert read["tool"]["uv"]["sources"] == {"x": {"git": "https://example.invalid"}}
    assert dropped == ["project.scripts", "tool.ruff", "tool.hatch"]


def test_folders_that_hold_nothing_of_ours_are_left_out_whole() -> None:
    ours = ["src/new/cli.py", "tests/test_controls.py"]
    theirs = [
        "src/old/a.py",
        "src/old/b.py",
        "tests/test_a.py",
        "tests/old/test_b.py",
        "run {x}.py",
    ]
    left = plan.tool_exclusions([*theirs, "tests/conftest.py", "module/"], ours, "new")
    assert left["ruff"] == [
        *("./module/", "./run [{]x[}].py", "./src/old/", "./tests/conftest.py"),
        *("./tests/old/", "./tests/test_a.py"),
    ]
    ignored = ["--ignore=tests/old", "--ignore=tests/test_a.py", "--noconftest"]
    assert left["pytest"] == ignored


@pytest.mark.parametrize(
    ("constraint", "old"),
    {">=3.8": True, "^3.9": True, "3.12": False, ">=3.11,<3.14": False}.items(),
)
def test_a_python_that_is_too_old_is_known(constraint: str, old: bool) -> None:
    assert detect.is_too_old(constraint) is old


def test_a_file_that_is_named_goes_before_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"in/a.csv": "x,y\n1,2\n", "out.csv": "x,z\n1,2\n", "in/b.csv": "x\n"})
    monkeypatch.chdir(tmp_path)
    code = [piece('y = df["y"]')]

    def chosen(file: str | None, column: str | None) -> tuple[str | None, Guess | None]:
        return detect_target.select_data(Path("in"), ["a.csv", "b.csv"], code, file, column)

    assert chosen("in/a.csv", None)[0] == "a.csv"  # from here
    assert chosen("b.csv", None) == ("b.csv", None)  # from there
    assert chosen("out.csv", "z")[0] == str(tmp_path / "out.csv")
    assert chosen(None, "y") == ("a.csv", Guess("y", "given as --target"))
    with pytest.raises(UsageError, match=r"--file c\.csv"):
        chosen("c.csv", None)
