"""What all documents are made of: records, and the envelope that each document carries."""

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from typing_extensions import TypeAliasType

Part = TypeVar("Part")


class _Omitted:
    """Marks a field that is left out of a document where it is None, and is never null there."""

    def __get_pydantic_json_schema__(
        self, core_schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(core_schema["schema"])


OMITTED = _Omitted()
# A field that a document may lack: `rows: Omittable[Count] = None`.
Omittable = Annotated[Part | None, OMITTED]
Digest = TypeAliasType(
    "Digest",
    Annotated[
        str, Field(pattern="^sha256:[0-9a-f]{64}$", description="SHA-256 of a file's bytes.")
    ],
)
Digests = TypeAliasType("Digests", Annotated[dict[str, Digest], Field(description="Path: digest.")])
Verdict = TypeAliasType("Verdict", Literal["passed", "refused"])
Task = Literal["binary", "multiclass", "regression"]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Number = int | float  # written as it is: a threshold of 0 is not 0.0


class Record(BaseModel):
    """A part of a document. Unknown keys and values of another type are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
        validate_by_name=True,
        serialize_by_alias=True,
    )

    @model_serializer(mode="wrap")
    def _without_omitted(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        for name, field in type(self).model_fields.items():
            if OMITTED in field.metadata and content.get(name, ...) is None:
                del content[name]
        return content


class Interval(Record):
    """A number on the whole holdout and the ends of its confidence interval.

    Each is null where it is not defined.
    """

    value: float | None
    low: float | None
    high: float | None


class Champion(Record):
    """The model that served when the comparison was made; null: there was none."""

    version: str
    package_digest: Digest
    model_digest: Digest


class Document(Record):
    """What every document carries."""

    # A step makes a document of its own fields alone; `artifacts.write` adds these and seals it.
    envelope: ClassVar[tuple[str, ...]]  # the names of the fields below

    schema_version: Literal[1] = 1
    step: str = ""
    commit: Annotated[str, Field(pattern="^[0-9a-f]{40,64}(-dirty)?$")] | None = Field(
        default=None,
        description="Git commit of the code, with -dirty if files differ from it; "
        "null outside of Git.",
    )
    data_digest: Digest = ""
    config_digest: Digest = ""
    started: Timestamp = ""
    ended: Timestamp = ""
    executor: Annotated[str, Field(min_length=1)] = ""
    arguments: list[str] = []
    inputs: Digests = {}
    outputs: Digests = {}
    digest: Digest = Field(default="", description="Of the rest, as JSON with sorted keys.")

    def content(self) -> dict[str, Any]:
        """Return the fields of its own as a document has them, without the envelope."""
        return self.model_dump(exclude_unset=True, exclude=set(self.envelope))


Document.envelope = tuple(Document.model_fields)
