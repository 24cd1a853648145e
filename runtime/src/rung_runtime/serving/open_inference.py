"""The Open Inference Protocol, version 2: one tensor a feature, JSON or binary.

https://github.com/kserve/open-inference-protocol, with its binary tensor data extension.
"""

import json
import re
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from .. import project
from ..prediction_log import text
from .batch import Answer, Fault, Faulty, Row, parsed

if TYPE_CHECKING:
    from . import Api

NAME = project.current().package  # of the model
LENGTH = "inference-header-content-length"
KINDS = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}  # the others are BYTES
PARTS = {"FP": "f", "INT": "i", "UINT": "u"}
Responses = dict[int | str, dict[str, Any]]
ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def routes(api: "Api") -> APIRouter:
    """The routes below /v2."""
    made = APIRouter(prefix="/v2")
    schema: dict[str, Any] = {"content": {"application/json": {"schema": ERROR}}}
    unknown: Responses = {404: {"description": "There is no such model"} | schema}
    ends: Responses = {503: {"description": "It is about to end"}}
    answers: Responses = {
        code: {"description": about} | schema
        for code, about in (
            (400, "The request breaks the contract"),
            (413, "Too much"),
            (503, "Too many"),
        )
    }

    def known(model: str, version: str | None) -> Response | None:
        if model == NAME and version in (None, api.model.version):
            return None
        said = f"there is no model {model} {version or ''}".rstrip()
        return JSONResponse({"error": f"{said}, but {NAME} {api.model.version}"}, 404)

    @made.get("")
    async def server() -> dict[str, Any]:
        """Name the service and what it can."""
        return {"name": "rung", "version": "1", "extensions": ["binary_tensor_data"]}

    @made.get("/health/live")
    async def live() -> dict[str, bool]:
        """Tell that the process lives."""
        return {"live": True}

    @made.get("/health/ready", responses=ends)
    async def ready() -> Response:
        """Tell whether new requests are welcome."""
        return JSONResponse({"ready": not api.draining}, 503 if api.draining else 200)

    @made.get("/models/{model}/ready", responses=unknown | ends)
    @made.get("/models/{model}/versions/{version}/ready", responses=unknown | ends)
    async def model_ready(model: str, version: str | None = None) -> Response:
        """Tell whether the model answers."""
        said = {"name": model, "ready": not api.draining}
        return known(model, version) or JSONResponse(said, 503 if api.draining else 200)

    @made.get("/models/{model}", responses=unknown)
    @made.get("/models/{model}/versions/{version}", responses=unknown)
    async def metadata(model: str, version: str | None = None) -> Response:
        """Name the tensors."""
        data = api.model.asked
        asked = [(name, KINDS.get(c.type, "BYTES"), [-1]) for name, c in data.columns.items()]
        given = [("prediction", "BYTES" if data.classes else "FP64", [-1])]
        if data.classes:
            given.append(("probabilities", "FP64", [-1, len(data.classes)]))
        inputs, outputs = (
            [dict(zip(("name", "datatype", "shape"), of, strict=True)) for of in tensors]
            for tensors in (asked, given)
        )
        body = {"name": NAME, "versions": [api.model.version], "platform": "scikit-learn"}
        return known(model, version) or JSONResponse(body | {"inputs": inputs, "outputs": outputs})

    @made.post("/models/{model}/infer", responses=unknown | answers)
    @made.post("/models/{model}/versions/{version}/infer", responses=unknown | answers)
    async def infer(request: Request, model: str, version: str | None = None) -> Response:
        """Predict as many rows as the tensors have."""
        asked: dict[str, Any] = {}

        def rows(body: bytes, request: Request) -> list[Row]:
            found, said = read(body, request.headers.get(LENGTH))
            asked.update(found)
            return said

        def say(name: str, answer: Answer) -> Response:
            return given(asked, name, answer)

        return known(model, version) or await api.answer("/v2", request, rows, say, _sorry)

    return made


def read(body: bytes, length: str | None) -> tuple[dict[str, Any], list[Row]]:
    """Read a request: its `id`, the outputs `wanted` (binary or not), the rows of its tensors.

    Raises:
        Faulty: It is none, or a tensor is not what it says.
    """
    at = int(length) if length and re.fullmatch("[0-9]{1,15}", length) else len(body)
    asked = parsed(body[:at])
    columns: dict[str, list[Any]] = {}
    try:
        for tensor in asked["inputs"]:
            name, kind, (size, *rest) = tensor["name"], tensor["datatype"], tensor["shape"]
            if (many := tensor.get("parameters", {}).get("binary_data_size")) is None:
                values = tensor["data"]
                values = [v[0] if isinstance(v, list) and rest else v for v in values]
            else:
                values, at = _unpacked(body[at : at + many], kind), at + many
            named = isinstance(name, str) and name not in columns
            if rest not in ([], [1]) or len(values) != size or not named:
                raise ValueError(f"{name}: not one tensor of shape [n] or [n, 1]")
            columns[name] = values
        every = zip(*columns.values(), strict=True)
        rows = [dict(zip(columns, values, strict=True)) for values in every]
        both: Any = [{"name": "prediction"}, {"name": "probabilities"}]
        packed = bool(asked.get("parameters", {}).get("binary_data_output"))
        wanted = {
            output["name"]: bool(output.get("parameters", {}).get("binary_data", packed))
            for output in asked.get("outputs") or both
        }
        if not rows or wanted.keys() - {"prediction", "probabilities"}:
            raise ValueError(
                f"no rows, or outputs other than prediction and probabilities: {wanted}"
            )
    except (ValueError, TypeError, LookupError, AttributeError, struct.error) as error:
        said = text(f"{type(error).__name__}: {str(error)[:100]}")
        raise Faulty([Fault(None, None, "not an inference request", said)]) from None
    return {"id": asked.get("id"), "wanted": wanted}, rows


def given(asked: dict[str, Any], name: str, answer: Answer) -> Response:
    """The answer: each output as JSON, or as bytes after it if that was asked for."""
    classes, predictions = answer.served.model.data.classes, answer.predictions
    named = [one["prediction"] for one in predictions]
    outputs = {"prediction": ("BYTES" if classes else "FP64", [len(named)], named)}
    if classes:
        shares = [share for one in predictions for share in one["probabilities"].values()]
        outputs["probabilities"] = ("FP64", [len(named), len(classes)], shares)
    tail, told = b"", []
    for output, (kind, shape, data) in outputs.items():
        if output not in asked["wanted"]:
            continue
        tensor: dict[str, Any] = {"name": output, "datatype": kind, "shape": shape}
        if asked["wanted"][output]:
            packed = _packed(data)
            told.append(tensor | {"parameters": {"binary_data_size": len(packed)}})
            tail += packed
        else:
            told.append(tensor | {"data": data})
    body = {"model_name": NAME, "model_version": answer.served.model.version, "outputs": told}
    head = json.dumps(body | {"id": asked["id"] or name}).encode()
    if not tail:
        return Response(head, media_type="application/json")
    return Response(head + tail, 200, {LENGTH: str(len(head))}, "application/octet-stream")


def _unpacked(data: bytes, kind: str) -> list[Any]:
    if kind != "BYTES":
        parts = re.fullmatch(r"(FP|INT|UINT)(8|16|32|64)", kind)
        dtype = (
            "?" if kind == "BOOL" else f"<{PARTS[parts[1]]}{int(parts[2]) // 8}" if parts else ""
        )
        found: list[Any] = np.frombuffer(data, np.dtype(dtype)).tolist()
        return found
    values, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        values.append(data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return values


def _packed(values: list[Any]) -> bytes:
    if isinstance(values[0], str):
        texts = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.array(values, "<f8").tobytes()


def _sorry(faulty: Faulty) -> Response:
    said = "; ".join(
        " ".join(str(part) for part in (fault.column, fault.rule, fault.value) if part is not None)
        + (f" (row {fault.row})" if fault.row is not None else "")
        for fault in faulty.faults
    )
    return JSONResponse({"error": said[:2000]}, 400 if faulty.status == 422 else faulty.status)
