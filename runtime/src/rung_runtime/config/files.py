"""Read a YAML file into a typed record, or say in one sentence what is wrong with it."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, ValidationError, model_validator

from .. import UsageError

# Pydantic's names of mistakes, in plain words.
MESSAGES = {
    "extra_forbidden": "there is no such key",
    "missing": "this key is missing",
    "float_type": "this must be a number, without quotes",
    "finite_number": "this must be a finite number",
    "model_type": "this must be keys with values",
}
WRITTEN_BY_ONBOARDING = ("data.yaml", "model.yaml", "gate.yaml")


class Strict(BaseModel):
    """A record that takes no unknown key, and no value of another type.

    A key that was renamed keeps its earlier name, as the second of its `AliasChoices`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_one_name_of_each_key(cls, content: Any) -> Any:
        if isinstance(content, dict):
            for field in cls.model_fields.values():
                if not isinstance(field.validation_alias, AliasChoices):
                    continue
                name, earlier = map(str, field.validation_alias.choices)
                if name in content and earlier in content:
                    raise ValueError(
                        f"{earlier} is the earlier name of {name}, and both are there: keep {name}"
                    )
        return content


Record = TypeVar("Record", bound=Strict)


class _Loader(yaml.SafeLoader):
    """Refuses a duplicate key: PyYAML would take the last value, and drop the other silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[tuple[str, str]] = set()
        for key_node, _ in node.value:
            key = (key_node.tag, str(key_node.value))
            if key in keys:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key[1]!r} is there twice", problem_mark=key_node.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep)


def read(path: Path, record: type[Record]) -> Record:
    """Read one file of `config/`.

    Raises:
        UsageError: It is missing or not YAML, or a key is unknown, absent or of another type.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        todo = "bring it back from Git"
        if path.name in WRITTEN_BY_ONBOARDING:
            todo = "`ml data use` writes it"
        raise UsageError(f"{path} is missing: {todo}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: this is not UTF-8: save it as UTF-8") from None
    return validate(parse_yaml(text, str(path)), record, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML, which anybody may have written.

    Args:
        text: The YAML.
        source: Where it comes from, for the message.

    Raises:
        UsageError: It is not YAML, or has a date that does not exist, or is nested too deeply.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = str(getattr(error, "problem", error)).splitlines()[0]
    except (ValueError, RecursionError) as error:
        line = ""
        reason = str(error)
    raise UsageError(f"{source}{line}: this is not YAML: {reason}")


def validate(value: object, record: type[Record], source: str) -> Record:
    """Return a value as a typed record.

    Args:
        value: Keys and values, as YAML or JSON has them.
        record: The type of the record.
        source: Where the value comes from, for the message.

    Raises:
        UsageError: A key is unknown, absent or of another type.
    """
    try:
        return record.model_validate(value)
    except ValidationError as error:
        first, *others = error.errors()
        key = ".".join(map(str, first["loc"])) + ": " if first["loc"] else ""
        more = f" (and {len(others)} more)" if others else ""
        message = MESSAGES.get(first["type"], first["msg"].removeprefix("Value error, "))
        raise UsageError(f"{source}: {key}{message}{more}") from None
