"""Draw the log of `make demo` as a terminal: python terminal.py demo.log demo.svg.

Left out are what installing says, what DVC says of its lock file, and the path of the clone.
"""

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

NOISE = re.compile(
    r"""\s+[+~-]\s\S+==|\s*(Building|Built|Downloading|Downloaded|Prepared|Resolved)\b|Bytecode\b|
        Using\sCPython|Creating\svirtual|.*DirtyLocalWarning|\s+warn\(|
        (Generating|Updating)\slock\sfile|Running\sstage|To\s(track|enable)|Use\s`dvc|
        \s+(git\sadd|dvc\sconfig)|.*\(no\sfiles\sto\scheck\)|make\[""",
    re.VERBOSE,
)


def kept(log: str) -> list[Text]:
    """Take the lines from the first step on, less the noise; colours as a terminal has them."""
    lines = log[log.index("== 1/") :].splitlines()
    if found := re.search(r"level=1 (\S+) \S+\s*$", lines[0]):
        lines = [line.replace(found[1], ".") for line in lines]
    shown: list[Text] = []
    for line in (line.rsplit("\r", 1)[-1] for line in lines):
        text = Text.from_ansi(line)
        blank = not text.plain.strip()
        if NOISE.match(text.plain) or (blank and (not shown or not shown[-1].plain.strip())):
            continue
        text.highlight_regex(r"^✓", "green")
        text.highlight_regex(r"^== .*", "bold")
        shown.append(text)
    # A blank line between two commands of DVC tells nothing.
    pairs = zip(shown, [*shown[1:], Text()], strict=True)
    return [a for a, b in pairs if a.plain.strip() or not b.plain.startswith("> ")]


def draw(lines: list[Text], title: str, svg: Path) -> None:
    """Write lines as an SVG; fonts are the reader's own, so that it loads nothing."""
    console = Console(record=True, width=104, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(line, soft_wrap=False)
    drawn = console.export_svg(title=title, unique_id=title.replace("make ", ""))
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace")
    svg.write_text(re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE).rstrip() + "\n", "utf-8")


def main() -> None:
    """Draw the log of the demo."""
    log, svg = map(Path, sys.argv[1:3])
    draw([Text("$ make demo", "bold"), *kept(log.read_text("utf-8"))], "make demo", svg)


if __name__ == "__main__":
    main()
