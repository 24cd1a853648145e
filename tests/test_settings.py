"""Files in `config/` and the environment: a mistake is a sentence, and earlier names are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT

Module = Callable[[str], ModuleType]


@pytest.fixture
def settings(module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, in a folder with an empty `delivery.yaml` and `drift.yaml`."""
    (tmp_path / "config").mkdir()
    for name in ("delivery", "drift"):
        (tmp_path / f"config/{name}.yaml").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return module("config.delivery")


def test_the_environment_goes_first_and_a_text_is_itself(
    settings: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"HOST": "::", "PORT": "80", "LOG": "", "PRIVATE": "[seats]", "DRAIN_SECONDS": "3"}
    for key, text in variables.items():
        monkeypatch.setenv(f"ML_{key}", text)
    service = settings.load_delivery().service
    assert (service.host, service.port, service.log) == ("::", 80, "")
    assert (service.private, service.drain_seconds) == (["seats"], 3.0)


@pytest.mark.parametrize(
    ("key", "text"),
    [("PORT", "["), ("PORT", "x"), ("PORT", ""), ("PRIVATE", "a: ["), ("PRIVATE", "a")],
)
def test_a_value_of_the_environment_that_is_none_is_named(
    settings: ModuleType, monkeypatch: pytest.MonkeyPatch, key: str, text: str
) -> None:
    monkeypatch.setenv(f"ML_{key}", text)
    with pytest.raises(settings.UsageError, match=f"(?i)environment.*{key}"):
        settings.load_delivery()


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("delivery", "registry: ''", "registry: "),
        ("delivery", "registry: 7", "registry: "),
        ("delivery", "service: 7", "service: this must be keys"),
        ("delivery", "shadow: {request: 7}", "shadow.request: there is no such key"),
        ("drift", "{recent_windows: 1, min_windows_in_alarm: 2}", "min_windows_in_alarm: 2 of 1"),
        ("drift", "window: {rows: 0}", "window.rows: "),
        ("drift", "max_age_days: .inf", "max_age_days: "),
    ],
)
def test_a_key_that_makes_no_sense_is_named(
    module: Module, settings: ModuleType, name: str, text: str, reason: str
) -> None:
    Path(f"config/{name}.yaml").write_text(text)
    with pytest.raises(settings.UsageError) as error:
        getattr(module(f"config.{name}"), f"load_{name}")()
    assert f"config/{name}.yaml: {reason}" in str(error.value)


CONTRACT: dict[str, Any] = {
    "source": "data/raw/x.csv",
    "target": "y",
    "task": "regression",
    "split": {"by": "stratified"},
    "columns": {"x": {"type": "number"}, "y": {"type": "number"}},
}
RULES: dict[str, Any] = {"metric": "rmse", "thresholds": {"rmse": 1}}
# Module, class, its other keys, what 0.2 read, and what is written now.
RENAMED: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "gaps": ("config", "Data", CONTRACT, {"gaps": ["-9"]}, {"missing_values": ["-9"]}),
    "left_out": ("config", "Data", CONTRACT, {"left_out": {"z": ""}}, {"ignored": {"z": ""}}),
    "column's gaps": (
        "config",
        "Column",
        {"type": "text"},
        {"gaps": ["-9"]},
        {"missing_values": ["-9"]},
    ),
    "open": ("config", "Column", {"type": "category"}, {"open": True}, {"allow_unknown": True}),
    "judge": ("config", "Gate", RULES, {"judge": "value"}, {"compare": "value"}),
    "worse_end": ("config", "Gate", RULES, {"judge": "worse_end"}, {"compare": "pessimistic"}),
    "replaces": (
        "config.delivery",
        "Delivery",
        {},
        {"replaces": "v7"},
        {"accept_incomparable": "v7"},
    ),
    "alarms": ("config.drift", "Drift", {}, {"alarms": 3}, {"min_windows_in_alarm": 3}),
    "windows": ("config.drift", "Drift", {}, {"windows": 9}, {"recent_windows": 9}),
}


@pytest.mark.parametrize("name", RENAMED)
def test_a_key_that_was_renamed_is_read_by_both_names_and_written_by_the_new_one(
    module: Module, name: str
) -> None:
    file, kind, others, before, now = RENAMED[name]
    record = getattr(module(file), kind)
    validate = module("config").validate
    new = validate(others | now, record, "x.yaml")
    assert validate(others | before, record, "x.yaml") == new
    assert new != validate(dict(others), record, "x.yaml") or "value" in now.values()
    assert new.model_dump().items() >= now.items()
    assert before.keys().isdisjoint(new.model_dump())
    assert record.model_validate_json(new.model_dump_json()) == new


@pytest.mark.parametrize("name", RENAMED)
def test_both_names_of_a_key_at_once_are_refused_in_a_sentence_with_both(
    module: Module, name: str
) -> None:
    file, kind, others, before, now = RENAMED[name]
    with pytest.raises(module("exceptions").UsageError) as error:
        module("config").validate(others | before | now, getattr(module(file), kind), "x.yaml")
    (old,) = before
    (new,) = now
    assert f"x.yaml: {old} is the earlier name of {new}, and both are there" in str(error.value)


@pytest.mark.parametrize("name", RENAMED)
def test_a_mistake_is_named_by_the_key_that_the_file_has(module: Module, name: str) -> None:
    file, kind, others, before, now = RENAMED[name]
    for (key,) in (before, now):
        with pytest.raises(module("exceptions").UsageError, match=rf"^x\.yaml: {key}: "):
            module("config").validate(
                others | {key: object()}, getattr(module(file), kind), "x.yaml"
            )


def test_columns_and_file_say_where_both_names_are(module: Module) -> None:
    column = {"type": "category", "open": True, "allow_unknown": True}
    columns = CONTRACT["columns"] | {"x": column}
    with pytest.raises(module("exceptions").UsageError, match=r"data\.yaml: columns\.x: open is "):
        module("config").validate(
            CONTRACT | {"columns": columns}, module("config").Data, "data.yaml"
        )


def test_files_of_a_new_project_have_the_names_of_now() -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "template/config").iterdir()]
    lines = [line for text in texts for line in text.splitlines()]
    earlier = {key for *_, before, _ in RENAMED.values() for key in before}
    keys = {line.partition(":")[0].strip() for line in lines if not line.startswith("#")}
    assert {"recent_windows", "allow_unknown"} <= keys
    assert earlier.isdisjoint(keys)


@pytest.mark.parametrize(
    "text",
    [
        "metric: rmse\nthresholds: {rmse: 1}\nmetric: mae",
        "metric: rmse\nthresholds: {rmse: 1, rmse: 100}",
    ],
)
def test_a_key_that_is_there_twice_is_refused(module: Module, text: str) -> None:
    """PyYAML takes the last, so that a line at the end of gate.yaml would undo one above it."""
    parsed = module("config").parse_yaml
    with pytest.raises(
        module("exceptions").UsageError, match=r"gate\.yaml, line [23]: .* is there twice"
    ):
        parsed(text, "gate.yaml")
    assert parsed("1: one\n'1': of another type", "data.yaml") == {1: "one", "1": "of another type"}


@pytest.mark.parametrize("where", ["oci://", "oci://ghcr.io", "oci://localhost/x", "oci+http:///x"])
def test_a_registry_without_a_host_is_never_somebody_elses(module: Module, where: str) -> None:
    oci = module("adapters.registry_oci")
    with pytest.raises(module("project").UsageError, match="is not oci://HOST/NAME"):
        oci.open_registry(where)
