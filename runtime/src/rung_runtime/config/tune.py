"""`config/tune.yaml`: what `ml tune` searches, and for how long."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from .files import MESSAGES, Strict

TUNE = Path("config/tune.yaml")
Key = tuple[str, ...]  # the keys that lead to a param: ("boosted", "learning_rate") in a `mean`
EXPONENT = re.compile(r"[-+]?[0-9.]+e[-+]?[0-9]+", re.IGNORECASE)


class Range(Strict):
    """Numbers between two ends, which are included; whole ones if both ends are."""

    low: int | float
    high: int | float
    log: bool = False  # search magnitudes: as many trials between 0.01 and 0.1 as up to 1
    step: int | float | None = Field(default=None, gt=0)

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are whole."""
        return not any(isinstance(end, float) for end in (self.low, self.high, self.step))

    @model_validator(mode="before")
    @classmethod
    def _has_numbers(cls, content: Any) -> Any:
        for key in ("low", "high", "step"):
            value = content.get(key) if isinstance(content, dict) else None
            if isinstance(value, str) and EXPONENT.fullmatch(value):
                number = f"{float(value):.1e}"
                raise ValueError(f"{key}: {value} is a text in YAML: write {number}")
        return content

    @model_validator(mode="after")
    def _is_searchable(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low: {self.low} is not below high: {self.high}")
        if self.log and self.low <= 0:
            raise ValueError("log: true needs a low above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step cannot be combined: leave one of them out")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(
                f"step: {self.step} is larger than the distance from {self.low} to {self.high}, so "
                f"that only {self.low} would be tried"
            )
        return self


class Tune(Strict):
    """What is searched, and how long."""

    trials: int = Field(default=60, ge=1)  # of the whole search, however often it was interrupted
    minutes: float = Field(default=15.0, gt=0)  # of one `ml tune`: no trial begins after them
    rows: int = Field(default=20_000, ge=50)  # of the training rows, at most: more are sampled
    # Ranges and lists of values. In the file, params of a part are below the part's name.
    space: dict[Key, Range | list[JsonValue]] = Field(min_length=1)

    @field_validator("space", mode="before")
    @classmethod
    def _flatten(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            raise ValueError("this must be params, each with a range or a list of values")
        return dict(_entries(content, ()))


def _entries(content: Mapping[Any, Any], above: Key) -> Iterator[tuple[Key, Any]]:
    """Yield each param with its range or its values.

    Raises:
        ValueError: Something is neither of them.
    """
    for name, value in content.items():
        key = (*above, str(name))
        if isinstance(value, list) and value:
            _require_choices(key, value)
            yield key, value
        elif isinstance(value, dict) and ("low" in value or "high" in value):
            yield key, _range(key, value)
        elif isinstance(value, dict) and value:
            yield from _entries(value, key)
        else:
            raise ValueError(
                f"{'.'.join(key)}: give {{low: …, high: …}} or a list of values; what is not to be "
                "searched belongs in params of config/model.yaml"
            )


def _require_choices(key: Key, values: list[Any]) -> None:
    """Check that a list has values that can be tried, each once.

    Raises:
        ValueError: One is not a number, a text, and so on, or is there twice.
    """
    seen = set()
    for value in values:
        try:
            text = json.dumps(value, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError):  # a date; .nan
            raise ValueError(
                f"{'.'.join(key)}: {value} cannot be tried: give numbers, texts, true, false, null "
                "or lists of them"
            ) from None
        if text in seen:
            raise ValueError(f"{'.'.join(key)}: {text} is in its list twice: leave one out")
        seen.add(text)


def _range(key: Key, value: Mapping[Any, Any]) -> Range:
    try:
        return Range.model_validate(value)
    except ValidationError as error:
        errors = error.errors()
        first = next((each for each in errors if each["type"] == "finite_number"), errors[0])
        inner = [str(part) for part in first["loc"] if part not in ("int", "float")]
        message = MESSAGES.get(first["type"], first["msg"].removeprefix("Value error, "))
        if first["type"] in ("int_type", "float_type"):
            message = MESSAGES["float_type"]
        raise ValueError(f"{'.'.join((*key, *inner))}: {message}") from None
