"""The example that a new project trains on can be told from what a user wrote, and removed."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
from conftest import ROOT

Module = Callable[[str], ModuleType]
# As the template brought it up to 0.2.
OLD_RULES = """
def rules(columns):
    found = {}
    if {"origin", "dest"} <= set(columns):
        found["a flight goes somewhere else"] = pl.col("origin") != pl.col("dest")
    return found
"""


def test_the_digests_of_the_example_are_those_of_the_template(module: Module) -> None:
    example = module("contract.example")
    digest = module("artifacts").digest
    schema = ROOT / "template/src/{{package_name}}/problem/schema.py"
    assert digest(ROOT / "template" / example.FLIGHTS) == example.FLIGHTS_DIGEST
    assert digest(schema) in example.SCHEMA_DIGESTS


@pytest.mark.parametrize("release", ["old", "new"])
def test_the_examples_rule_is_removed_from_the_schema(module: Module, release: str) -> None:
    example = module("contract.example")
    schema = ROOT / "template/src/{{package_name}}/problem/schema.py"
    text = OLD_RULES if release == "old" else schema.read_text("utf-8")
    text = example.EXAMPLE_RULE.sub(example.NO_RULE, text)
    assert "flight" not in text
    assert text.endswith("    return {}\n")
    compile(text, "schema.py", "exec")
