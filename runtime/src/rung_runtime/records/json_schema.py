"""The JSON Schema of all documents, which `documents.schema.json` holds for other programs."""

import re
from typing import Any

from pydantic.json_schema import models_json_schema

from . import DOCUMENTS
from .base import Document

REFERENCE = "#/$defs/{model}"


def definitions() -> dict[str, Any]:
    """Return the definition of each typed document, and of each part of one.

    A document is called by its step, another record by its type in snake case.
    """
    kinds: list[type[Document]] = [Document, *DOCUMENTS.values()]
    _, schema = models_json_schema([(kind, "validation") for kind in kinds], ref_template=REFERENCE)
    by_type: dict[str, Any] = schema["$defs"]
    names = {name: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in by_type}
    names |= {kind.__name__: step for step, kind in DOCUMENTS.items()}
    names[Document.__name__] = "envelope"
    references = {_reference(name): _reference(names[name]) for name in by_type}
    result = {names[name]: _tidy(by_type[name], references) for name in sorted(by_type)}
    envelope = result["envelope"]
    envelope["required"] = list(envelope["properties"])
    del envelope["additionalProperties"]  # each document has more
    for step in DOCUMENTS:
        result[step] = _on_envelope(result[step], envelope)
    for definition in result.values():
        if "discriminator" in definition:
            _list_properties(definition, result)
    return result


def _reference(name: str) -> str:
    return REFERENCE.format(model=name)


def _tidy(part: Any, references: dict[str, str]) -> Any:
    """Return a part of a schema with renamed references, and without titles and defaults."""
    if isinstance(part, list):
        return [_tidy(item, references) for item in part]
    if not isinstance(part, dict):
        return part
    result: dict[str, Any] = {}
    for key, value in part.items():
        if key == "properties":
            result[key] = {name: _tidy(field, references) for name, field in value.items()}
        elif key == "description":
            result[key] = " ".join(value.split())
        elif key == "$ref":
            result[key] = references[value]
        elif key not in ("title", "default", "mapping"):
            result[key] = _tidy(value, references)
    return result


def _on_envelope(document: dict[str, Any], envelope: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a document as fields of its own on top of the envelope."""
    shared = set(envelope["properties"]) - {"step"}
    fields = document["properties"].items()
    return {
        "description": document["description"],
        "$ref": _reference("envelope"),
        "type": "object",
        "required": document["required"],
        "properties": {name: field for name, field in fields if name not in shared},
        "unevaluatedProperties": False,
    }


def _list_properties(union: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Add to a choice of several records every property that one of them may have."""
    choices = [definitions[choice["$ref"].rpartition("/")[2]] for choice in union["oneOf"]]
    union["type"] = "object"
    union["properties"] = {name: {} for choice in choices for name in choice["properties"]}
    del union["discriminator"]  # which is OpenAPI's
