"""What follows from manifests, copier/paths.yml and types: `make generate` writes it.

Between markers in other files are: the choices of copier.yml and its lists of paths, the rows of
adapters in copier/paths.yml, the extras of the runtime, and the tables of docs/adapters.md,
docs/export.md and docs/systems.md. The schema of documents is a whole file. A test fails when one
is stale.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
EXPORTS = ROOT / "hooks/rung/exports"
ADAPTERS = ROOT / "runtime/src/rung_runtime/adapters"
SLOTS = ("registry", "target", "ci", "pipeline", "tracker", "model_format", "explainer", "engine")
# Of each slot, the question that chooses an adapter.
QUESTIONS = {
    "registry": "registry",
    "target": "deployment",
    "ci": "ci",
    "model_format": "model_format",
    "explainer": "explainer",
    "engine": "engine",
}
LISTS = ("ci", "model_format")  # questions of which a project may choose several
# Questions that a release before did not ask.
NEW = {
    "runtime": "'copied'",
    "model_format": "['skops']",
    "explainer": "'shapley'",
    "engine": "'polars'",
}
ALWAYS = (
    "target_local",
    "model_format_skops",
    "explainer_shapley",
    "engine_polars",
)  # others of its slot come beside it
SYSTEMS = ROOT / "docs/systems.toml"
# What docs/systems.md calls the slots of adapters and the kinds of exports, in its order.
GROUPS = {
    "orchestrator": "Orchestrators",
    "ci": "CI",
    "cloud": "Clouds",
    "engine": "Engines for data",
    "pipeline": "Pipelines within a project",
    "tracker": "Trackers",
    "registry": "Registries of models",
    "target": "Where a model is deployed to",
    "serving": "Model servers",
    "model_format": "Estimators and their files",
    "explainer": "Explanations",
}
# Of a system that has no folder. What every project has is live without one.
STATES = ("live", "recipe", "not yet", "does not work")
SCHEMA = ROOT / "runtime/src/rung_runtime/documents.schema.json"
CACHES = ("__pycache__", '"*.py[co]"', ".DS_Store")


@dataclass(frozen=True)
class Adapter:
    """One adapter, as its manifest describes it."""

    slot: str
    name: str
    label: str  # what a person chooses
    level: int
    requires: list[str]
    environment: list[str]  # variables that it reads
    proof: str  # live, validated or stand-in
    proved_by: str

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return f"{self.slot}_{self.name}"

    @property
    def answer(self) -> str:
        """The answer that brings it, as copier/paths.yml writes it; empty if it is always there."""
        if self.slot not in QUESTIONS or self.folder in ALWAYS:
            return ""
        return f", answer: {{{QUESTIONS[self.slot]}: {self.name}}}"


def adapters() -> list[Adapter]:
    """Read every manifest, in the order of slots and names.

    Raises:
        ValueError: A manifest lacks a key or has another one, or its folder has another name.
    """
    found = []
    for path in ADAPTERS.glob("*/adapter.toml"):
        try:
            adapter = Adapter(**tomllib.loads(path.read_text("utf-8")))
        except TypeError as error:
            raise ValueError(f"{path.relative_to(ROOT)}: {error}") from None
        if path.parent.name != adapter.folder or adapter.slot not in SLOTS:
            raise ValueError(f"{path.relative_to(ROOT)}: it is of {adapter.folder}")
        if adapter.proof not in ("live", "validated", "stand-in"):
            raise ValueError(f"{path.relative_to(ROOT)}: proof is {adapter.proof!r}")
        found.append(adapter)
    # In a slot the default, which is what copier.yml says, goes first.
    defaults = {"oci": 0, "local": 0, "github": 0, "skops": 0, "shapley": 0, "polars": 0}
    order = {slot: number for number, slot in enumerate(SLOTS)}
    return sorted(found, key=lambda a: (order[a.slot], defaults.get(a.name, 1), a.name))


def choices(slot: str) -> str:
    """Return the choices of a question."""
    chosen = [adapter for adapter in adapters() if adapter.slot == slot]
    quoted = {a.name: f'"{a.label}"' if ":" in a.label else a.label for a in chosen}
    return "".join(f"    {quoted[adapter.name]}: {adapter.name}\n" for adapter in chosen)


def rows() -> str:
    """Return the rows of copier/paths.yml."""
    lines = []
    for adapter in adapters():
        path = f"/src/rung_runtime/adapters/{adapter.folder}{adapter.answer}"
        lines.append(f"- {{class: owned, level: {adapter.level}, path: {path}}}\n")
    return "".join(lines)


def extras() -> str:
    """Return the extras of the runtime: one for each name of an adapter."""
    required: dict[str, set[str]] = {}
    for adapter in adapters():
        required.setdefault(adapter.name, set()).update(adapter.requires)
    return "".join(f"{name} = {json.dumps(sorted(required[name]))}\n" for name in sorted(required))


def index() -> str:
    """Return the table of docs/adapters.md."""
    lines = ["| slot | adapter | what it is | level | requires | environment | proof |"]
    lines.append("|---|---|---|--:|---|---|---|")
    for adapter in adapters():
        page = f"../runtime/src/rung_runtime/adapters/{adapter.folder}/README.md"
        needs = ", ".join(f"`{name}`" for name in adapter.requires) or "none"
        reads = ", ".join(f"`{name}`" for name in adapter.environment) or "none"
        lines.append(
            f"| {adapter.slot} | [{adapter.name}]({page}) | {adapter.label} | {adapter.level} "
            f"| {needs} | {reads} | {adapter.proof}: {adapter.proved_by} |"
        )
    return "\n".join(["", *lines, "", ""])


def manifests() -> dict[str, dict[str, Any]]:
    """Read the manifest of every export, by its name."""
    return {
        path.parent.name: tomllib.loads(path.read_text("utf-8"))
        for path in sorted(EXPORTS.glob("*/export.toml"))
    }


def exports() -> str:
    """Return the table of docs/export.md."""
    lines = ["| `rung export` | system | proof | requires | files |", "|---|---|---|---|---|"]
    for name, about in manifests().items():
        needs = ", ".join(f"`{name}`" for name in about["requires"]) or "none"
        files = ", ".join(f"`{path.replace('{name}', 'NAME')}`" for path in about["files"].values())
        proof = f"{about['proof']}: {about['proved_by']}"
        lines.append(f"| `{name}` | {about['label']} | {proof} | {needs} | {files} |")
    return "\n".join(["", *lines, "", ""])


@dataclass(frozen=True)
class System:
    """A row of docs/systems.md.

    Attributes:
        group: The slot of an adapter, the kind of an export, or what docs/systems.toml says.
        name: Of its folder, if it has one.
        label: What it is called.
        use: What a person does to use it; empty if there is nothing.
        state: `live`, `validated`, `stand-in`, `recipe`, `not yet` or `does not work`.
        reason: What proves it, or why there is no more.
    """

    group: str
    name: str
    label: str
    use: str
    state: str
    reason: str


def with_a_folder() -> list[System]:
    """Return the systems that an adapter or an export is for."""
    rows = []
    for adapter in adapters():
        page = f"../runtime/src/rung_runtime/adapters/{adapter.folder}/README.md"
        use = f"[{adapter.slot} `{adapter.name}`]({page})"
        label = adapter.label.partition(":")[0]
        is_library = adapter.slot in ("model_format", "explainer") and label == adapter.name
        if not is_library:  # which is spelled as it spells itself
            label = label[0].upper() + label[1:]
        rows.append(
            System(adapter.slot, adapter.name, label, use, adapter.proof, adapter.proved_by)
        )
    for name, about in manifests().items():
        use = f"[`rung export {name}`](export.md)"
        reason = ". ".join(filter(None, [about["proved_by"], about.get("notes")]))
        rows.append(System(about["kind"], name, about["label"], use, about["proof"], reason))
    return rows


def without_a_folder() -> list[System]:
    """Return the systems of docs/systems.toml, with a reason each.

    Raises:
        ValueError: A row lacks a key, has another one, or says something else than these states.
    """
    rows = []
    for row in tomllib.loads(SYSTEMS.read_text("utf-8"))["system"]:
        try:
            system = System(**({"name": row["label"].lower(), "use": ""} | row))
        except TypeError as error:
            raise ValueError(f"docs/systems.toml: {row['label']}: {error}") from None
        if system.state not in STATES or system.group not in GROUPS:
            raise ValueError(f"docs/systems.toml: {system.label}: {system.group}, {system.state}")
        rows.append(system)
    return rows


def systems() -> str:
    """Return the tables of docs/systems.md: a row of docs/systems.toml gives way to a folder."""
    rows = with_a_folder()
    known = {(row.group, row.name) for row in rows}
    rows += [row for row in without_a_folder() if (row.group, row.name) not in known]
    lines = []
    for group in dict.fromkeys([*GROUPS, *(row.group for row in rows)]):
        lines += ["", f"### {GROUPS.get(group, group.capitalize())}", ""]
        lines += ["| system | how to use it | state | proved by, or why |", "|---|---|---|---|"]
        for row in rows:
            if row.group == group:
                lines.append(f"| {row.label} | {row.use} | {row.state} | {row.reason} |")
    return "\n".join([*lines, "", ""])


def schema() -> str:
    """Return the JSON Schema of all documents."""
    sys.path.insert(0, str(ROOT / "runtime/src"))
    from rung_runtime.records.json_schema import definitions

    content = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The documents that the steps leave in artifacts/",
        "$defs": definitions(),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def lists(table: str) -> str:
    """Return `_exclude` and `_skip_if_exists` of copier.yml.

    Args:
        table: The text of copier/paths.yml.
    """
    paths: list[dict[str, Any]] = yaml.safe_load(table)
    lines = [
        "",
        "_exclude:",
        "  # Setting _exclude replaces Copier's own list; a clone that was worked in has these.",
        *(f"  - {cache}" for cache in CACHES),
        "  # Level-0 seeds: an update must not see them, or it would bring back what was deleted.",
    ]
    seeds = [row for row in paths if row["class"] == "seed"]
    later = [row for row in seeds if row["level"] or "answer" in row]
    lines += _when("_copier_operation == 'update'", [row for row in seeds if row not in later])
    lines.append("  # A level adds whole files.")
    for level in sorted({row["level"] for row in paths} - {0}):
        chosen = [row for row in paths if row["level"] == level and row["class"] != "retired"]
        lines += _when(f"level < {level}", chosen)
    lines.append("  # Of a slot, a project has the adapters that were asked for.")
    answers = [row["answer"] for row in paths if "answer" in row]
    for answer in [a for n, a in enumerate(answers) if a not in answers[:n]]:
        ((name, value),) = answer.items()
        # An update renders the version before as well, which may not ask.
        given = f"({name} | default({NEW[name]}))" if name in NEW else name
        missing = f"'{value}' not in {given}" if name in LISTS else f"{given} != '{value}'"
        lines += _when(missing, [row for row in paths if row.get("answer") == answer])
    lines += [f"  - {row['path']}" for row in paths if row["class"] == "retired"]
    lines += ["", "# Seeds that a level, or an answer, may yet bring.", "_skip_if_exists:"]
    lines += [f"  - {row['path']}" for row in later]
    return "\n".join([*lines, ""])


def _when(condition: str, rows: list[dict[str, Any]]) -> list[str]:
    """Return a block of paths that are left out under a condition."""
    paths = [f"    {row['path']}" for row in rows]
    return ["  - |", f"    {{% if {condition} %}}", *paths, "    {% endif %}"]


def between(text: str, name: str, new: str) -> str:
    """Replace what stands between the markers of a name.

    Raises:
        ValueError: The markers are not there.
    """
    comment = r"(?:<!-- {0} {1} -->|[ ]*# {0} {1})\n"
    begin, end = (comment.format(word, re.escape(name)) for word in ("begin", "end"))
    match = re.search(f"({begin})(.*?)({end})", text, re.DOTALL)
    if match is None:
        raise ValueError(f"there are no markers for {name}")
    return text[: match.end(1)] + new + text[match.start(3) :]


def generated() -> dict[Path, str]:
    """Return every file with a generated part, as it must be."""
    paths = between((ROOT / "copier/paths.yml").read_text("utf-8"), "adapters", rows())
    questions = (ROOT / "copier.yml").read_text("utf-8")
    for slot in QUESTIONS:
        questions = between(questions, slot, choices(slot))
    runtime = ROOT / "runtime/pyproject.toml"
    docs = ROOT / "docs/adapters.md"
    export_page = ROOT / "docs/export.md"
    systems_page = ROOT / "docs/systems.md"
    return {
        ROOT / "copier/paths.yml": paths,
        ROOT / "copier.yml": between(questions, "paths", lists(paths)),
        runtime: between(runtime.read_text("utf-8"), "adapters", extras()),
        docs: between(docs.read_text("utf-8"), "adapters", index()),
        export_page: between(export_page.read_text("utf-8"), "exports", exports()),
        systems_page: between(systems_page.read_text("utf-8"), "systems", systems()),
        SCHEMA: schema(),
    }


def main() -> int:
    """Write what is stale; with --check, only say so."""
    check = "--check" in sys.argv[1:]
    stale = [path for path, text in generated().items() if path.read_text("utf-8") != text]
    for path in stale:
        print(
            f"{path.relative_to(ROOT)} is stale" + (": make generate" if check else ", and written")
        )
        if not check:
            path.write_text(generated()[path], "utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
