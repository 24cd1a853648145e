"""What a caller may send and gets, as OpenAPI, from the contract of the model in service."""

import re
from typing import Any

from pydantic import BaseModel

from ..config import Column
from .batch import Served

# Of the directives of Polars; a format with others is described by its name alone.
DIGITS = {
    "%Y": "[12][0-9]{3}",
    "%m": "(0[1-9]|1[0-2])",
    "%d": "(0[1-9]|1[0-9]|2[0-8])",
    "%H": "([01][0-9]|2[0-3])",
    "%M": "[0-5][0-9]",
    "%S": "[0-5][0-9]",
}
TEXT = {"type": "string"}


class Fault(BaseModel):
    row: int | None
    column: str | None
    reason: str


class Refusal(BaseModel):
    detail: list[Fault]


class Prediction(BaseModel):
    prediction: str | float
    probabilities: dict[str, float] = {}  # of the classes, if there are any


class Answer(BaseModel):
    request_id: str
    version: str
    model_digest: str
    predictions: list[Prediction]


def row(served: Served) -> dict[str, Any]:
    """The JSON schema of a row."""
    asked = served.model.asked
    unused = {name: {"description": "not used"} for name in asked.left_out}
    return {
        "type": "object",
        "required": list(asked.columns),
        "properties": {n: column(c) for n, c in asked.columns.items()} | unused,
        "additionalProperties": False,
        "example": served.example,
    }


def column(contract: Column) -> dict[str, Any]:
    """The JSON schema of a value."""
    said: dict[str, Any] = {"type": contract.type}
    if contract.type == "category":
        said = TEXT | (
            {"examples": contract.categories} if contract.open else {"enum": contract.categories}
        )
    elif contract.type == "datetime":
        form = (contract.formats or [""])[0]
        parts = re.split(r"(%[#.]?\w)", form)
        said = TEXT | ({"description": f"a time like {form}"} if form else {"format": "date-time"})
        if form and all(part in DIGITS for part in parts[1::2]):
            said["pattern"] = f"^{''.join(DIGITS.get(p) or re.escape(p) for p in parts)}$"
    said |= {
        k: v for k, v in (("minimum", contract.min), ("maximum", contract.max)) if v is not None
    }
    if contract.nullable:
        said["type"] = [said["type"], "null"]
        if "enum" in said:
            said["enum"] = [*said["enum"], None]
    return said
