"""Run the pipeline through DVC: only the stages whose inputs changed."""

import os
import re
import subprocess
import sys
from pathlib import Path

from .. import BadInput, Refused


def repro() -> None:
    """`dvc repro`, ended as the step that ended it.

    Raises:
        Refused, BadInput, SystemExit: The step did, and has said why.
    """
    command, scripts = [sys.executable, "-m", "dvc", "repro"], Path(sys.executable).parent
    # The stages say `ml`, which is on the PATH only where the environment is active.
    env = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        said = ""
        for line in process.stderr or ():
            sys.stderr.write(line)
            said += line
    if process.returncode:
        code = re.search(r"exited with (\d+)", said)
        ends: dict[str, type[Exception]] = {"1": Refused, "2": BadInput}
        if code and code[1] not in ends:
            sys.exit(int(code[1]))
        raise ends[code[1] if code else "2"]("a step ended it, as said above")
