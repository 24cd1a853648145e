"""Programs that the runtime runs: how they end, what they print, and the sentence on a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rung_runtime import RefusedError, UsageError, process
from rung_runtime.process import run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_program_is_run_where_and_with_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "ours")
    code = "import os, sys; print(os.getcwd(), os.environ['OURS'], os.environ['X'], input())"
    result = run(python(code), folder=tmp_path, env={"X": "x"}, stdin=b"stdin\n")
    assert result.succeeded
    assert result.text == f"{tmp_path} ours x stdin\n"


def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    code = r"import sys; sys.stdout.buffer.write(b'a\xff\r\n'); sys.stderr.buffer.write(b'\xff')"
    result = run(python(code))
    assert (result.text, result.error_text) == ("a\ufffd\n", "\ufffd")


def test_a_failure_ends_as_the_caller_says_with_the_programs_own_reason() -> None:
    with pytest.raises(RefusedError, match=r"^\S+ failed: no disk$"):
        run(python("import sys; sys.exit('no disk')")).output_or(RefusedError)
    with pytest.raises(UsageError, match=r"failed: exit code 3$"):
        run(python("raise SystemExit(3)")).output_or(UsageError)
    with pytest.raises(RefusedError, match=r"failed: on the other one$"):
        run(python("print('on the other one'); raise SystemExit(1)")).output_or(RefusedError)


def test_a_reason_of_several_lines_is_cut_at_its_beginning_and_moves_no_cursor() -> None:
    result = run(python(r"import sys; sys.exit('\n'.join(map(str, range(20))) + '\x1b[2J')"))
    assert result.reason.splitlines()[:3] == ["", "  …", "  8"]
    assert result.reason.endswith(r"19\x1b[2J")


def test_a_program_that_cannot_be_started_or_does_not_end_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^no-such-program is not installed: install it"):
        run(["no-such-program", "x"])
    (file := tmp_path / "tool").write_text("no program\n")
    with pytest.raises(UsageError, match=r"^tool cannot be started: Permission denied$"):
        run([str(file)])
    with pytest.raises(UsageError, match=r"does not answer within 0\.1 s$"):
        run(python("import time; time.sleep(60)"), seconds=0.1)


def test_what_is_shown_is_not_kept_and_lines_of_errors_come_one_by_one(
    capfd: pytest.CaptureFixture[str],
) -> None:
    lines: list[str] = []
    code = r"import sys; print('shown'); sys.stderr.write('50 %\r100 %\nend'); sys.exit(7)"
    result = run(python(code), output="shown", on_error_line=lines.append)
    assert (result.returncode, result.stdout) == (7, b"")
    assert lines == ["50 %\n", "100 %\n", "end"]
    assert run(python("print('again')"), output="shown").stdout == b""
    assert capfd.readouterr().out == "shown\nagain\n"


@pytest.mark.parametrize("waited", [False, True])
def test_no_signal_goes_to_a_group_that_may_be_anothers_by_now(
    monkeypatch: pytest.MonkeyPatch, waited: bool
) -> None:
    signalled = []
    monkeypatch.setattr(os, "killpg", lambda group, _: signalled.append(group))
    with subprocess.Popen(["true"], start_new_session=True) as ended:
        while process.exit_code(ended) is None:
            time.sleep(0.01)
        if waited:
            ended.wait()
        process.signal_group(ended, signal.SIGTERM)
        assert signalled == ([] if waited else [ended.pid])
