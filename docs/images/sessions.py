"""Record the terminal sessions of docs/*.md, each a real run: python sessions.py [NAME …].

A session is a list of commands, run one after another as typed, in a folder of its own, with a
template of two releases: the last in docs/releases.toml, and what is in this clone now. Shown is
what a person sees but for what installing says and the middle of a long output; paths of this
machine are shortened.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from rich.text import Text
from terminal import NOISE, draw

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MORE = re.compile(r"pre-commit installed|Uninstalled|Installed|Audited|.*\.{9,}(Passed|.*Skipped)$")
# Lines of one command that are shown, at its begin and its end, if there are more than both.
SHOWN_LINES = {"current": (8, 12)}
MOST_LINES = (24, 30)  # of the other sessions
# Before `$ `, what is done without being shown; URL is where the template is.
SESSIONS = {
    "start": [
        "$ rung new delays --defaults --template URL --data 'project_name=Delays'",
        "$ cd delays; git log --oneline",
        "$ cd delays; uv run ml run",
    ],
    "current": [
        "rung new delays --defaults --template URL --to OLD",
        "cd delays; echo '# Mine' >> tox.ini; git commit -qam Mine",
        '$ cd delays; rung update --check; echo "exit $?"',
        "$ cd delays; rung update",
        "$ cd delays; git add --all && git commit -qm 'Update from the template' && rung update",
    ],
    "climb": [
        "rung new delays --defaults --template URL",
        "$ cd delays; rung up --yes",
    ],
    "adopt": [
        "mkdir wine; PYTHONPATH=TESTS:HOOKS python -c 'from pathlib import Path; "
        'from repositories import KINDS; KINDS["notebook"].build(Path("wine"))\'',
        "$ cd wine; git log --oneline; ls",
        "$ cd wine; rung adopt --defaults --template URL",
        "$ cd wine; uv run ml run",
    ],
}


def template(folder: Path) -> tuple[Path, str]:
    """Clone the template with its releases as tags, and name the last."""
    clone = folder / "template"
    git = ["git", "-C", str(clone)]
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    releases = tomllib.loads((ROOT / "docs/releases.toml").read_text("utf-8"))
    for version, commit in releases.items():
        subprocess.run([*git, "tag", f"v{version}", commit], check=True)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    version = version.partition(".dev")[0]  # of one that is in the making, nobody is told
    subprocess.run([*git, "tag", "--force", f"v{version}"], check=True, capture_output=True)
    return clone, f"v{[*releases][-1]}"


def main() -> None:
    """Run and draw the sessions that are named, or all."""
    for name in sys.argv[1:] or SESSIONS:
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder, "work")
            here.mkdir()
            clone, old = template(Path(folder))
            (Path(folder) / ".gitconfig").write_text(
                "[user]\nname=Ada\nemail=ada@example.invalid\n"
            )
            asked = ["uv", "cache", "dir"]
            cache = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
            env = os.environ | {"HOME": folder, "COLUMNS": "104", "UV_CACHE_DIR": cache.strip()}
            env.pop("VIRTUAL_ENV", None)
            shown: list[Text] = []
            for line in SESSIONS[name]:
                command = line.removeprefix("$ ").replace("URL", str(clone)).replace("OLD", old)
                command = command.replace("TESTS", str(ROOT / "tests"))
                command = command.replace("HOOKS", str(ROOT / "hooks"))
                done = subprocess.run(
                    ["bash", "-c", command],
                    cwd=here,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                )
                if not line.startswith("$ "):
                    if done.returncode:
                        raise SystemExit(f"{command}: {done.stdout}")
                    continue
                shown.append(Text(re.sub(r"^\$ cd \w+; ", "$ ", line), "bold"))
                start = len(shown)
                for output in (
                    done.stdout.replace(str(clone), "URL").replace(f"{here}/", "").splitlines()
                ):
                    text = Text.from_ansi(output.rsplit("\r", 1)[-1])
                    blank = not text.plain.strip()
                    if NOISE.match(text.plain) or MORE.match(text.plain.strip()):
                        continue
                    if not (blank and not shown[-1].plain.strip()):
                        text.highlight_regex(r"^✓|passed$", "green")
                        shown.append(text)
                first, last = SHOWN_LINES.get(name, MOST_LINES)
                if len(shown) - start > first + last:
                    shown[start + first : -last] = [Text("  ⋮")]
                if shown[-1].plain.strip():
                    shown.append(Text())
            draw(shown, name, HERE / f"{name}.svg")


if __name__ == "__main__":
    main()
