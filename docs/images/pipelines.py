"""Draw the graph of ci/README.md: python docs/images/pipelines.py docs/images/pipelines.svg."""

import sys
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import graph  # noqa: E402 it reads the table

LEFT, COLUMN, WIDE, TALL, ROW, GAP = 190, 138, 114, 42, 56, 26
# What a job is for, in as few words as a box has room for.
WORDS = {
    "lint": "style, hooks",
    "types": "mypy",
    "test": "pytest",
    "controls": "gates refuse",
    "validate": "contract",
    "candidate": "gate, champion",
    "rehearsal": "deploy, image",
    "report": "in the summary",
    "comment": "by the base's code",
    "train": "gate",
    "register": "a version",
    "attest": "signed",
    "image": "built once",
    "attest-image": "signed together",
    "verify": "by digest",
    "staging": "smoke, shadow",
    "production": "approval, watch",
    "score": "many rows",
    "monitor": "drift, labels",
    "retrain": "an alarm trains",
    "audit": "vulnerabilities",
    "rollback": "champion before",
    "drill": "in staging",
    "update": "from the template",
    "propose": "as a request",
}
NAMES = {
    "request": "pull or merge request",
    "push": "push",
    "change": "push of data or code",
    "event": "new data or an alarm",
    "hand": "by hand",
}
# Readable on its own background, whatever the page has.
STYLE = """
svg { --back: #ffffff; --text: #1f2328; --soft: #59636e; --line: #818b98; --box: #f6f8fa;
  --gate: #fff1cc; --gate-line: #9a6700; --live: #dafbe1; --live-line: #1a7f37; }
@media (prefers-color-scheme: dark) {
  svg { --back: #0d1117; --text: #f0f6fc; --soft: #9198a1; --line: #656c76; --box: #161b22;
    --gate: #3b2c07; --gate-line: #d29922; --live: #0c2d18; --live-line: #3fb950; }
}
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--text); }
.name { font-weight: 600; }
.soft { font-size: 11px; fill: var(--soft); }
.box { fill: var(--box); stroke: var(--line); }
.gate { fill: var(--gate); stroke: var(--gate-line); }
.live { fill: var(--live); stroke: var(--live-line); }
.edge { fill: none; stroke: var(--line); stroke-width: 1.5; marker-end: url(#end); }
.group { fill: none; stroke: var(--line); stroke-dasharray: 4 3; }
"""


def text(x: float, y: float, said: str, kind: str = "", anchor: str = "start") -> str:
    """Write a line."""
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(said)}</text>'


def places(rows: dict[str, graph.Row]) -> dict[str, tuple[int, int]]:
    """Give each job a column, by what it comes after, and a row; the longest way is the first."""
    tasks = {name: graph.Task(set(row.needs)) for name, row in rows.items()}
    before = {name: graph.before(name, tasks) for name in tasks}
    if not any(before.values()):
        return {name: (at, 0) for at, name in enumerate(rows)}

    def depth(name: str) -> int:
        return max((1 + depth(need) for need in rows[name].needs), default=0)

    after = {name: sum(name in some for some in before.values()) for name in rows}
    found: dict[str, tuple[int, int]] = {}
    for name in sorted(rows, key=lambda name: -after[name]):
        at = depth(name)
        found[name] = at, sum(column == at for column, _ in found.values())
    return found


def drawn() -> str:
    """Give the picture."""
    table = graph.table(graph.README.read_text("utf-8"))
    found = table.graph(2)
    triggers = {name: [t for p, t, _ in found if p == name] for name, _, _ in found}
    jobs = {name: rows for name, _, rows in found}
    level = {line.pipeline: line.level[0] for line in reversed(table.lines)}
    words = NAMES | {word: word for word in table.times.values()}
    lines: list[str] = []
    top, beside = GAP, 0
    for name in (
        "checks",
        "pipeline",
        "train",
        "score",
        "monitor",
        "drill",
        "rollback",
        "update",
        "audit",
    ):
        rows, at = jobs[name], places(jobs[name])
        if inner := [job for job in rows if name == "train" and job in jobs["deliver"]]:
            # Called by train; started by hand too.
            top += 14
            first = LEFT + min(at[job][0] for job in inner) * COLUMN - 12
            width = COLUMN * len(inner) - COLUMN + WIDE + 24
            lines.append(
                f'<rect x="{first}" y="{top - 24}" width="{width}" height="{TALL + 34}" rx="10"'
                ' class="group"/>'
            )
            said = f"deliver, which {', '.join(words[t] for t in triggers['deliver'])} starts too"
            lines.append(text(first + 12, top - 9, said.replace("by hand", "a click"), "soft"))
        known = ", ".join(word for trigger, word in words.items() if trigger in triggers[name])
        lines.append(
            f'<text x="{beside + 20}" y="{top + 14}"><tspan class="name">{name}</tspan>'
            f'<tspan class="soft" dx="8">level {level[name]}</tspan></text>'
        )
        for number, said in enumerate(textwrap.wrap(known, 28)):
            lines.append(text(beside + 20, top + 29 + 14 * number, said, "soft"))
        for job, row in rows.items():
            x, y = beside + LEFT + at[job][0] * COLUMN, top + at[job][1] * ROW
            for need in sorted(row.needs):
                from_x = beside + LEFT + at[need][0] * COLUMN + WIDE
                from_y, to_y = top + at[need][1] * ROW + TALL / 2, y + TALL / 2
                # Along its own row for as long as it can, so that it crosses no box.
                bend = x - 24
                lines.append(
                    f'<path class="edge" d="M{from_x} {from_y} H{bend} '
                    f'C{bend + 14} {from_y} {bend + 4} {to_y} {x - 3} {to_y}"/>'
                )
            kind = "gate" if row.gate == "runs it" else "live" if row.deploys else "box"
            lines.append(
                f'<rect x="{x}" y="{y}" width="{WIDE}" height="{TALL}" rx="6" class="{kind}"/>'
            )
            lines.append(text(x + WIDE / 2, y + 18, job, "name", "middle"))
            lines.append(text(x + WIDE / 2, y + 33, WORDS[job], "soft", "middle"))
        # Two that are short share a line.
        beside = 4 * COLUMN if len(rows) <= 2 and not beside else 0
        if not beside:
            top += max(row for _, row in at.values()) * ROW + TALL + GAP + 12 * bool(inner)
    for number, (kind, said) in enumerate(
        [("gate", "runs the gate"), ("live", "deploys what a gate has passed")]
    ):
        x = 20 + number * 130
        lines.append(f'<rect x="{x}" y="{top}" width="14" height="14" rx="3" class="{kind}"/>')
        lines.append(text(x + 20, top + 11, said, "soft"))
    said = "At level 1, deliver is verify and production."
    lines.append(text(20 + 3 * COLUMN, top + 11, said, "soft"))
    width, height = LEFT + 8 * COLUMN, top + 32
    arrow = (
        '<marker id="end" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M0 0 8 4 0 8z" style="fill: var(--line)"/></marker>'
    )
    title = "The pipelines: what starts each, its jobs, and what they wait for"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}" role="img">',
            f"<title>{title}</title>",
            f"<style>{STYLE}</style>",
            f"<defs>{arrow}</defs>",
            f'<rect width="{width}" height="{height}" rx="8" style="fill: var(--back)"/>',
            *lines,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(drawn(), "utf-8")
