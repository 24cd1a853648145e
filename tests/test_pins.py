"""Pins that Renovate has moved are merged with what the template has made of their lines."""

from __future__ import annotations

import pytest
from rung.pins import merge

OLD = "1" * 40
NEW = "2" * 40
NEWEST = "3" * 40
DIGEST = "sha256:" + "4" * 64
OTHER = "sha256:" + "5" * 64


def workflow(*lines: str) -> bytes:
    return "\n".join(["jobs:", "  test:", "    steps:", *lines, "      - run: make", ""]).encode()


def uses(name: str, commit: str, tag: str) -> str:
    return f"      - uses: {name}@{commit}  # {tag}"


def test_the_pin_of_an_action_that_the_template_no_longer_uses_goes_with_it() -> None:
    setup = uses("astral-sh/setup-uv", OLD, "v1.0.0"), "        with: {version: 0.1.0, cache: a}"
    moved = uses("astral-sh/setup-uv", NEW, "v2.0.0"), "        with: {version: 0.2.0, cache: a}"
    ours = "      - {uses: ./.github/actions/uv}"
    assert merge(workflow(*setup), workflow(*moved), workflow(ours)) == workflow(ours)


def test_what_else_the_team_has_changed_beside_a_pin_is_kept_or_conflicts() -> None:
    setup = uses("astral-sh/setup-uv", OLD, "v1.0.0")
    moved = uses("astral-sh/setup-uv", NEW, "v2.0.0")
    ours = "      - {uses: ./.github/actions/uv}"
    step = "      - run: echo ours"
    far = [f"      - run: echo {n}" for n in range(5)]
    merged = merge(workflow(setup, *far), workflow(moved, *far, step), workflow(ours, *far))
    assert merged == workflow(ours, *far, step)
    assert merge(workflow(setup), workflow(moved, step), workflow(ours)) is None


@pytest.mark.parametrize(
    ("team", "template", "expected"),
    [
        ("v2.0.0", "v1.9.9", "v2.0.0"),
        ("v2.0.0", "v2.0.1", "v2.0.1"),
        ("v10.0.0", "v9.0.0", "v10.0.0"),
    ],
)
def test_the_newer_of_two_pins_wins(team: str, template: str, expected: str) -> None:
    commits = {"v1.0.0": OLD, team: NEW, template: NEWEST}

    def text(tag: str, *more: str) -> bytes:
        return workflow(*more, uses("actions/checkout", commits[tag], tag))

    assert merge(text("v1.0.0"), text(team), text(template)) == text(expected)
    more = "      - run: echo of the template"
    assert merge(text("v1.0.0"), text(team), text(template, more)) == text(expected, more)


def test_a_base_image_keeps_its_digest_where_the_comment_above_it_changed() -> None:
    def dockerfile(comment: str, image: str) -> bytes:
        return f"# {comment}\nARG PYTHON={image}\n\nFROM ${{PYTHON}}\n".encode()

    base = dockerfile("before", "python:3.11-slim")
    pinned = f"python:3.11-slim@{DIGEST}"
    merged = merge(base, dockerfile("before", pinned), dockerfile("now", "python:3.11-slim"))
    assert merged == dockerfile("now", pinned)
    # Of two digests nobody knows which is newer: the owner's stays.
    template = dockerfile("now", f"python:3.11-slim@{OTHER}")
    assert merge(base, dockerfile("before", pinned), template) == dockerfile("now", pinned)
    # The line is gone: the owner decides.
    gone = b"# now\nFROM python:3.11-slim\n"
    assert merge(base, dockerfile("before", pinned), gone) is None


def test_of_two_versions_of_uv_the_newer_wins_with_all_of_its_hashes() -> None:
    def requirements(version: str, *hashes: str) -> bytes:
        listed = [f"    --hash=sha256:{letter * 64}" for letter in hashes]
        return " \\\n".join([f"uv=={version}", *listed]).encode() + b"\n"

    base = requirements("0.13.8", "a", "b")
    team = requirements("0.14.0", "c", "d", "e")
    assert merge(base, team, requirements("0.13.9", "f", "0")) == team
    template = requirements("0.14.10", "f", "0")
    assert merge(base, team, template) == template


def test_a_number_that_is_no_pin_is_no_pin() -> None:
    old, mine, theirs = (f"timeout: {n}\nwith: x\n".encode() for n in ("1.5", "2.5", "3.5"))
    assert merge(old, mine, theirs) is None


def test_a_pin_that_moved_is_kept_where_the_template_has_written_its_file_anew() -> None:
    """Wherever the action stands now, and as often."""
    base = workflow(uses("actions/checkout", OLD, "v1.0.0"), "        with: {fetch-depth: 0}")
    team = workflow(uses("actions/checkout", NEW, "v2.0.0"), "        with: {fetch-depth: 0}")
    step = f"    - uses: actions/checkout@{OLD}  # v1.0.0"
    template = "\n".join(["name: anew", "steps:", step, "    - run: a", step, ""]).encode()
    expected = template.replace(OLD.encode(), NEW.encode()).replace(b"v1.0.0", b"v2.0.0")
    assert merge(base, team, template) == expected
