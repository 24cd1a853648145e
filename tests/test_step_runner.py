"""The process that performs the steps of `ml run`: a step is as one that was started by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT, Render

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")

# What a step does here, by its argument.
RUNNER = """
import os, sys, time
from pathlib import Path
from rung_runtime import step_runner
step_runner.SLOW = step_runner.BESIDE_STEPS = ()
def main():
    match sys.argv[1]:
        case "train": print("as asked")
        case "tell":
            print(os.getcwd(), os.environ["COLOUR"], "ML_STEP_RUNNER" in os.environ)
            print("a warning", file=sys.stderr)
        case "refuse": sys.exit(1)
        case "break": raise ValueError("a fault")
        case "die": os.kill(os.getpid(), 9)
        case "wait":
            Path("pid").write_text(str(os.getpid()))
            time.sleep(600)
with step_runner.start(main) as variables:
    print(variables["ML_STEP_RUNNER"], flush=True)
    sys.stdin.read()
"""
CLIENT = "from rung_runtime import step_runner; step_runner.delegate(); print('by itself')"
# `ml` where nothing can be imported but the standard library and the runtime.
BARE_ML = """
import sys
sys.modules |= dict.fromkeys(["typer", "pydantic", "polars"])
from rung_runtime.cli import main
main()
"""
Step = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def runner(render: Render, sources: Render, tmp_path: Path) -> Iterator[tuple[Step, Path]]:
    """Start a runner; give what starts a step that asks it, and the runner's address."""
    path = {"PYTHONPATH": str(sources(level=1)), "COLOUR": "blue"}
    command = [sys.executable, "-c", RUNNER]
    with subprocess.Popen(
        command,
        env=os.environ | path,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        address = Path(process.stdout.readline().strip())

        def step(name: str, code: str = CLIENT, **more: str) -> subprocess.Popen[str]:
            env = os.environ | path | {"ML_STEP_RUNNER": str(address)} | more
            return subprocess.Popen(
                [sys.executable, "-c", code, name],
                cwd=tmp_path,
                env=env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )

        yield step, address
        process.communicate()
    assert not address.exists()


def test_a_step_has_the_folder_environment_and_output_of_its_client(
    runner: tuple[Step, Path], tmp_path: Path
) -> None:
    step, _ = runner
    for colour in ("red", "green"):
        process = step("tell", COLOUR=colour)
        assert process.communicate() == (f"{tmp_path} {colour} False\n", "a warning\n")
        assert process.returncode == 0


@pytest.mark.parametrize(("name", "code"), [("refuse", 1), ("break", 70), ("die", -signal.SIGKILL)])
def test_a_client_ends_as_its_step_does(runner: tuple[Step, Path], name: str, code: int) -> None:
    step, _ = runner
    process = step(name)
    assert ("ValueError: a fault" in process.communicate()[1]) == (name == "break")
    assert process.returncode == code


def test_a_step_ends_with_its_client_and_the_next_one_runs(
    runner: tuple[Step, Path], tmp_path: Path
) -> None:
    step, _ = runner
    process = step("wait")
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert step("tell").communicate()[0].endswith("False\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def write_later(file: int) -> None:
    time.sleep(0.05)
    os.write(file, b"a step")


def test_what_is_slow_to_import_is_imported_until_there_is_something_to_do(
    module: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()
    (tmp_path / "a_slow_module.py").write_text(f"import os; os.write({write_end}, b'a step')")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_broken_module.py").write_text("raise ValueError")
    names = ["no_module_of_this_name", "a_broken_module", "a_slow_module", "another_one"]
    assert module("step_runner")._ready([read_end], names) == [read_end]
    assert names == ["another_one"]
    os.read(read_end, 100)
    with ThreadPoolExecutor() as thread:
        thread.submit(write_later, write_end)
        assert module("step_runner")._ready([read_end], names, keep=1) == [read_end]
    assert names == ["another_one"]  # what is imported beside steps only
    os.close(read_end)
    os.close(write_end)


def test_a_step_whose_runner_is_gone_runs_by_itself(runner: tuple[Step, Path]) -> None:
    step, address = runner
    elsewhere = str(address.parent / "nothing")
    assert step("tell", ML_STEP_RUNNER=elsewhere).communicate()[0] == "by itself\n"


def test_the_client_of_a_step_waits_for_no_library_and_other_commands_have_no_runner(
    runner: tuple[Step, Path],
) -> None:
    step, _ = runner
    assert step("train", BARE_ML).communicate() == ("as asked\n", "")
    assert step("report", BARE_ML).communicate()[1].startswith("ml: ml needs typer")


def test_what_dvc_runs_in_waits_for_no_library_but_dvc() -> None:
    code = "import sys, rung_runtime.adapters.pipeline_dvc.repro; print(*sys.modules)"
    env = os.environ | {"PYTHONPATH": str(ROOT / "runtime/src")}
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert not {"polars", "pydantic", "typer"} & set(loaded.split())
