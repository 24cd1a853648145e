"""OpenAPI: the requests and responses of `POST /predict`, with the columns of the model served."""

import re
from collections.abc import Container
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

from ..config import Column
from ..config.delivery import Service
from .loaded_model import LoadedModel
from .rows import Row

# What each directive of Polars writes; a format with others is described by its name alone.
DATE_PATTERNS = {
    "%Y": "[12][0-9]{3}",
    "%m": "(0[1-9]|1[0-2])",
    "%d": "(0[1-9]|1[0-9]|2[0-8])",
    "%H": "([01][0-9]|2[0-3])",
    "%M": "[0-5][0-9]",
    "%S": "[0-5][0-9]",
}
# An example of a private column says nothing of the training data.
NO_VALUES = {
    "number": 0.0,
    "integer": 0,
    "boolean": False,
    "category": "",
    "text": "",
    "datetime": "2000-01-01T00:00",
}
DIRECTIVE = re.compile(r"(%[#.]?\w)")
Schema = dict[str, Any]  # of JSON Schema


class Fault(BaseModel):
    row: int | None
    column: str | None
    reason: str


class Refusal(BaseModel):
    detail: list[Fault]


class Explanation(BaseModel):
    """How a prediction comes from the columns: all numbers here add up to what was predicted."""

    model_config = ConfigDict(populate_by_name=True)

    class_: Annotated[
        str | None,
        Field(alias="class", description="Whose probability is explained; absent of a regression"),
    ] = None
    base_value: Annotated[
        float, Field(description="What is predicted, on average, without the values of the row")
    ]
    contributions: Annotated[
        dict[str, float],
        Field(description="By column: of a probability, or in the unit of the target"),
    ]
    private: Annotated[
        float | None, Field(description="Of all columns that are not shown, if there are any")
    ] = None
    remainder: Annotated[
        float | None, Field(description="What the explainer attributes to no column")
    ] = None


class Prediction(BaseModel):
    prediction: str | float
    probabilities: dict[str, float] = {}  # of the classes, if there are any
    explanation: Annotated[
        Explanation | None, Field(description="With explain=true; null if there is none in time")
    ] = None
    explanation_error: Annotated[str | None, Field(description="Why the explanation is null")] = (
        None
    )


class Answer(BaseModel):
    request_id: str
    version: str
    model_digest: str
    predictions: list[Prediction]


def document(app: FastAPI, loaded: LoadedModel, settings: Service) -> dict[str, Any]:
    """Return the OpenAPI document of the service. Of private columns it has the type alone."""
    private = set(settings.private)
    openapi = get_openapi(title=app.title, version=loaded.model.version, routes=app.routes)
    openapi["components"]["schemas"]["Row"] = row_schema(loaded, private)
    example = {"rows": [public_example(loaded, private)]}
    row = {"$ref": "#/components/schemas/Row"}
    rows = {"type": "array", "items": row, "minItems": 1, "maxItems": settings.max_rows}
    request = {
        "type": "object",
        "required": ["rows"],
        "properties": {"rows": {"oneOf": [rows, row]}},
    }
    body = {"schema": {"anyOf": [request, row, rows]}, "example": example}
    openapi["paths"]["/predict"]["post"]["parameters"] = [
        {
            "name": "explain",
            "in": "query",
            "description": "Explain the first rows: see Explanation",
            "schema": {"type": "boolean", "default": False},
        }
    ]
    openapi["paths"]["/predict"]["post"]["requestBody"] = {
        "required": True,
        "content": {"application/json": body},
    }
    return openapi


def row_schema(loaded: LoadedModel, private: Container[str]) -> Schema:
    """Return the schema of a row."""
    contract = loaded.model.request_contract
    properties = {
        name: column_schema(without_values(column) if name in private else column)
        for name, column in contract.columns.items()
    }
    for name in contract.ignored:
        properties[name] = {"description": "not used"}
    return {
        "type": "object",
        "required": list(contract.columns),
        "properties": properties,
        "additionalProperties": False,
        "example": public_example(loaded, private),
    }


def without_values(column: Column) -> Column:
    """Return a column's contract without what its values are like."""
    hidden = {"categories": [], "allow_unknown": True, "min": None, "max": None}
    return column.model_copy(update=hidden)


def public_example(loaded: LoadedModel, private: Container[str]) -> Row:
    """Return the example of a row; the value of a private column says nothing but its type."""
    columns = loaded.model.request_contract.columns
    return {
        name: NO_VALUES[columns[name].type] if name in private else value
        for name, value in loaded.example.items()
    }


def column_schema(column: Column) -> Schema:
    """Return the schema of a column's values."""
    schema: Schema = {"type": column.type}
    if column.type == "category":
        schema = {"type": "string"}
        if column.categories:
            schema["examples" if column.allow_unknown else "enum"] = column.categories
    elif column.type == "text":
        schema = {"type": "string"}
    elif column.type == "datetime":
        schema = _time_schema(column.formats[0] if column.formats else "")
    if column.min is not None:
        schema["minimum"] = column.min
    if column.max is not None:
        schema["maximum"] = column.max
    if column.nullable:
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return schema


def _time_schema(time_format: str) -> Schema:
    """Return the schema of a time in a format of Polars; "" is ISO 8601."""
    if not time_format:
        return {"type": "string", "format": "date-time"}
    schema = {"type": "string", "description": f"a time like {time_format}"}
    parts = DIRECTIVE.split(time_format)
    if all(directive in DATE_PATTERNS for directive in parts[1::2]):
        pattern = "".join(DATE_PATTERNS.get(part) or re.escape(part) for part in parts)
        schema["pattern"] = f"^{pattern}$"
    return schema
