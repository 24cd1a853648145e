"""Keys that a JSON Schema does not name, which some schemas let pass: typing errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import check_jsonschema

VENDOR = Path(check_jsonschema.__file__).parent / "builtin_schemas/vendor"
COMBINES = ("allOf", "anyOf", "oneOf")


def unknown_keys(schema: str, content: Any) -> list[str]:
    """Return the paths of keys that no alternative of a vendored schema names."""
    root = json.loads((VENDOR / f"{schema}.json").read_text("utf-8"))
    return list(dict.fromkeys(_unknown(content, [root], root, "")))


def _unknown(value: Any, schemas: list[Any], root: Any, path: str) -> Iterator[str]:
    every = list(_alternatives(schemas, root))
    if isinstance(value, list):
        items = [schema["items"] for schema in every if "items" in schema]
        for index, entry in enumerate(value):
            yield from _unknown(entry, items, root, f"{path}[{index}]")
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        within = [
            schema["properties"][key] for schema in every if key in schema.get("properties", {})
        ]
        for schema in every:
            patterns = schema.get("patternProperties", {})
            within += [sub for pattern, sub in patterns.items() if re.search(pattern, str(key))]
            within += [schema["additionalProperties"]] if schema.get("additionalProperties") else []
        if not within and any("properties" in schema for schema in every):
            yield f"{path}.{key}"
        yield from _unknown(
            inner, [sub for sub in within if isinstance(sub, dict)], root, f"{path}.{key}"
        )


def _alternatives(schemas: list[Any], root: Any) -> Iterator[dict[str, Any]]:
    """Yield schemas with all that they refer to and combine, each once."""
    todo = list(schemas)
    seen: set[int] = set()
    while todo:
        schema = todo.pop()
        if not isinstance(schema, dict) or id(schema) in seen:
            continue
        seen.add(id(schema))
        yield schema
        if "$ref" in schema:
            target = root
            for part in schema["$ref"].removeprefix("#").strip("/").split("/"):
                target = target[part] if part else target
            todo.append(target)
        todo += [inner for how in COMBINES for inner in schema.get(how, [])]
        todo += [schema[key] for key in ("then", "else") if key in schema]
