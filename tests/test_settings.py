"""`config/delivery.yaml`, `config/drift.yaml` and the environment: a mistake is a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

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
    said = {"HOST": "::", "PORT": "80", "LOG": "", "PRIVATE": "[seats]", "DRAIN_SECONDS": "3"}
    for key, text in said.items():
        monkeypatch.setenv(f"ML_{key}", text)
    found = settings.load_delivery().service
    assert (found.host, found.port, found.log) == ("::", 80, "")
    assert (found.private, found.drain_seconds) == (["seats"], 3.0)


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
    ("name", "text", "said"),
    [
        ("delivery", "registry: ''", "registry: "),
        ("delivery", "registry: 7", "registry: "),
        ("delivery", "service: 7", "service: this must be keys"),
        ("delivery", "shadow: {request: 7}", "shadow.request: there is no such key"),
        ("drift", "{windows: 1, alarms: 2}", "alarms: 2 of 1 windows can never alarm"),
        ("drift", "window: {rows: 0}", "window.rows: "),
        ("drift", "max_age_days: .inf", "max_age_days: "),
    ],
)
def test_a_key_that_makes_no_sense_is_named(
    module: Module, settings: ModuleType, name: str, text: str, said: str
) -> None:
    Path(f"config/{name}.yaml").write_text(text)
    with pytest.raises(settings.UsageError) as error:
        getattr(module(f"config.{name}"), f"load_{name}")()
    assert f"config/{name}.yaml: {said}" in str(error.value)


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
    with pytest.raises(oci.UsageError, match="is not oci://HOST/NAME"):
        oci.open_registry(where)
