"""`ml data add`: rows that satisfy the contract come in once, and no row that was there changes."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from conftest import Render

Module = Callable[[str], ModuleType]
JULY = (Path(__file__).parent / "data/flights-2013-07.csv").read_text().splitlines(keepends=True)


@pytest.fixture
def loop(
    render: Render, module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The module, in a project of its own."""
    project = render(level=1)
    for name in ("config", "data"):
        shutil.copytree(project / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return module("cli.data")


def new_file(*lines: str, name: str = "new.csv") -> Path:
    path = Path(name).absolute()
    path.write_text("".join([JULY[0], *lines]))
    return path


def source() -> Path:
    return Path("data/raw/flights.csv")


def sourced(name: str) -> Path:
    """Configure another source."""
    config = Path("config/data.yaml")
    config.write_text(config.read_text().replace("flights.csv", name))
    return source().with_name(name)


def test_what_is_new_is_appended_and_what_is_there_is_not_added_again(
    loop: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    before = source().read_bytes()
    loop.add_data(new_file(*JULY[1:11]))
    assert source().read_bytes() == before + "".join(JULY[1:11]).encode()
    loop.add_data(new_file(*JULY[6:21]))
    assert source().read_bytes() == before + "".join(JULY[1:21]).encode()
    assert "10 rows added to data/raw/flights.csv (5 were there already)" in capsys.readouterr().out
    with pytest.raises(loop.RefusedError, match="already"):
        loop.add_data(new_file(*JULY[1:21]))
    assert source().read_bytes() == before + "".join(JULY[1:21]).encode()


def test_a_last_line_without_an_end_is_ended_first(loop: ModuleType) -> None:
    before = source().read_bytes().rstrip(b"\n")
    source().write_bytes(before)
    loop.add_data(new_file(JULY[1]))
    assert source().read_bytes() == before + b"\n" + JULY[1].encode()


def test_a_gzipped_source_stays_one(loop: ModuleType, module: Module) -> None:
    before = source().read_bytes()
    packed = sourced("flights.csv.gz")
    packed.write_bytes(gzip.compress(before))
    loop.add_data(new_file(*JULY[1:5]))
    assert gzip.decompress(packed.read_bytes()) == before + "".join(JULY[1:5]).encode()
    assert module("pipeline.ingest").read(packed, ",").height == before.count(b"\n") + 3


def test_a_row_that_breaks_the_contract_adds_nothing(loop: ModuleType) -> None:
    before = source().read_bytes()
    fields = JULY[2].split(",")
    fields[JULY[0].split(",").index("seats")] = "-5"
    with pytest.raises(loop.RefusedError, match=r"(?s)nothing was added.*seats: below 0"):
        loop.add_data(new_file(JULY[1], ",".join(fields)))
    assert source().read_bytes() == before


def test_types_that_are_not_those_of_the_source_are_told(loop: ModuleType) -> None:
    table = pl.read_csv(source(), infer_schema_length=None)
    parquet = sourced("flights.parquet")
    table.write_parquet(parquet)
    before = parquet.read_bytes()
    with pytest.raises(loop.UsageError, match="column flight is String, and Int64 in"):
        loop.add_data(new_file(*JULY[1:5]))
    assert parquet.read_bytes() == before
    more = table.head(3).with_columns(pl.col("flight") + 1)
    more.write_parquet("new.parquet")
    loop.add_data(Path("new.parquet").absolute())
    assert pl.read_parquet(parquet).equals(pl.concat([table, more]))


@pytest.mark.slow  # processes import everything
def test_of_two_who_add_at_once_neither_loses_its_rows(loop: ModuleType, module: Module) -> None:
    before = source().read_text().count("\n")
    package = Path(str(loop.__file__)).parent
    sources = [str(package.parents[1]), str(module("problem").folder().parents[1])]
    code = f"import sys; sys.path[:0] = {sources!r}\n"
    code += "from pathlib import Path; from rung_runtime.cli import data\n"
    code += "data.add_data(Path(sys.argv[1]).absolute())"
    files = [new_file(*JULY[1 + 100 * n : 101 + 100 * n], name=f"new-{n}.csv") for n in range(4)]
    running = [subprocess.Popen([sys.executable, "-c", code, str(file)]) for file in files]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    assert source().read_text().count("\n") == before + 400
