"""The Open Inference Protocol, version 2: a tensor for each feature, as JSON or as bytes.

https://github.com/kserve/open-inference-protocol, with its extension for binary tensor data.
"""

import json
import re
import struct
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from .. import project
from ..config import Data
from ..prediction_log.layout import json_text
from . import pieces
from .api import Api, ParsedRequest
from .batcher import Answer
from .pieces import Pieces
from .rows import Fault, RequestError, Row, max_values, parse_json

NAME = project.current().package  # of the model
JSON_LENGTH_HEADER = "inference-header-content-length"
DATATYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}  # the others are BYTES
NUMPY_KINDS = {"FP": "f", "INT": "i", "UINT": "u"}
OUTPUTS = ("prediction", "probabilities")
MAX_ERROR = 2000  # characters
Responses = dict[int | str, dict[str, Any]]
ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}


class InferenceRequest(NamedTuple):
    """A request, parsed."""

    id: str | None
    is_binary: dict[str, bool]  # the outputs that are wanted, each as bytes or as JSON
    rows: list[Row]


class Tensor(NamedTuple):
    """An output of the model."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


def routes(api: Api) -> APIRouter:
    """Return the routes below /v2."""
    router = APIRouter(prefix="/v2")
    error_body: dict[str, Any] = {"content": {"application/json": {"schema": ERROR_SCHEMA}}}
    unknown: Responses = {404: {"description": "There is no such model"} | error_body}
    ends: Responses = {503: {"description": "It is about to end"}}
    refusals: Responses = {
        400: {"description": "The request breaks the contract"} | error_body,
        413: {"description": "Too much"} | error_body,
        415: {"description": "An encoding other than gzip"} | error_body,
        503: {"description": "Too many"} | error_body,
    }

    def unknown_model(model: str, version: str | None) -> Response | None:
        if model == NAME and version in (None, api.model.version):
            return None
        requested = f"{model} {version or ''}".rstrip()
        error = f"there is no model {requested}, but {NAME} {api.model.version}"
        return JSONResponse({"error": error}, 404)

    @router.get("")
    async def server() -> dict[str, Any]:
        """Name the service and what it can."""
        return {"name": "rung", "version": "1", "extensions": ["binary_tensor_data"]}

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        """Tell that the process lives."""
        return {"live": True}

    @router.get("/health/ready", responses=ends)
    async def ready() -> Response:
        """Tell whether new requests are welcome."""
        return JSONResponse({"ready": not api.draining}, 503 if api.draining else 200)

    @router.get("/models/{model}/ready", responses=unknown | ends)
    @router.get("/models/{model}/versions/{version}/ready", responses=unknown | ends)
    async def model_ready(model: str, version: str | None = None) -> Response:
        """Tell whether the model answers."""
        if refusal := unknown_model(model, version):
            return refusal
        body = {"name": model, "ready": not api.draining}
        return JSONResponse(body, 503 if api.draining else 200)

    @router.get("/models/{model}", responses=unknown)
    @router.get("/models/{model}/versions/{version}", responses=unknown)
    async def metadata(model: str, version: str | None = None) -> Response:
        """Name the tensors."""
        return unknown_model(model, version) or JSONResponse(model_metadata(api))

    @router.post("/models/{model}/infer", responses=unknown | refusals)
    @router.post("/models/{model}/versions/{version}/infer", responses=unknown | refusals)
    async def infer(request: Request, model: str, version: str | None = None) -> Response:
        """Predict as many rows as the tensors have."""
        if refusal := unknown_model(model, version):
            return refusal
        return await api.answer("/v2", request, partial(parse, api), render_error)

    return router


def model_metadata(api: Api) -> dict[str, Any]:
    """Return the name, the versions, and the tensors of the model."""
    contract = api.model.request_contract
    inputs = [
        {"name": name, "datatype": DATATYPES.get(column.type, "BYTES"), "shape": [-1]}
        for name, column in contract.columns.items()
    ]
    datatype = "BYTES" if contract.classes else "FP64"
    outputs = [{"name": "prediction", "datatype": datatype, "shape": [-1]}]
    if contract.classes:
        shape = [-1, len(contract.classes)]
        outputs.append({"name": "probabilities", "datatype": "FP64", "shape": shape})
    return {
        "name": NAME,
        "versions": [api.model.version],
        "platform": "scikit-learn",
        "inputs": inputs,
        "outputs": outputs,
    }


def parse(api: Api, body: bytes, request: Request) -> Pieces[ParsedRequest]:
    """Parse a request.

    Raises:
        RequestError: See `read_request`.
    """
    json_length = request.headers.get(JSON_LENGTH_HEADER)
    contract = api.model.request_contract
    inference = yield from read_request(body, json_length, contract, api.settings.max_rows)
    return ParsedRequest(inference.rows, partial(render, inference), inference.id)


def read_request(
    body: bytes, json_length: str | None, contract: Data, max_rows: int
) -> Pieces[InferenceRequest]:
    """Read a request.

    Args:
        body: JSON, and the bytes of binary tensors after it.
        json_length: The length of the JSON as the header says it, if there is one.
        max_rows: Rows that it may have. More are refused before a value of them is read.

    Raises:
        RequestError: It is not a request, has more rows or tensors than there may be, or a tensor
            does not have the shape that it says.
    """
    has_length = json_length and re.fullmatch("[0-9]{1,15}", json_length)
    end = int(json_length) if json_length and has_length else len(body)
    document = yield from parse_json(body[:end], max_values(contract, max_rows))
    try:
        columns = _read_tensors(document["inputs"], body, end, max_rows)
        every_row = zip(*columns.values(), strict=True)
        rows = []
        for values in every_row:
            rows.append(dict(zip(columns, values, strict=True)))
            yield
        is_binary = _requested_outputs(document)
        if not rows or is_binary.keys() - set(OUTPUTS):
            raise ValueError(
                f"no rows, or outputs other than prediction and probabilities: {is_binary}"
            )
        return InferenceRequest(document.get("id"), is_binary, rows)
    except (ValueError, TypeError, LookupError, AttributeError, struct.error) as error:
        reason = json_text(f"{type(error).__name__}: {str(error)[:100]}")
        raise RequestError.for_request("not an inference request", value=reason) from None


def _read_tensors(
    tensors: list[Any], body: bytes, start: int, max_rows: int
) -> dict[str, list[Any]]:
    """Return the values of each tensor by its name.

    Args:
        start: Where the bytes of binary tensors begin, one after the other.
    """
    columns: dict[str, list[Any]] = {}
    for tensor in tensors:
        name = tensor["name"]
        datatype = tensor["datatype"]
        size, *rest = tensor["shape"]
        if type(size) is int and size > max_rows:
            excess = f"{size} rows are more than {max_rows}"
            raise RequestError.for_request(f"{excess}, send them in parts", 413)
        byte_count = _parameters(tensor).get("binary_data_size")
        if byte_count is None:
            values = tensor["data"]
            values = [v[0] if isinstance(v, list) and rest else v for v in values]
        else:
            values = unpack(body[start : start + byte_count], datatype, size)
            start += byte_count
        is_new = isinstance(name, str) and name not in columns
        if rest not in ([], [1]) or len(values) != size or not is_new:
            raise ValueError(f"{name}: not one tensor of shape [n] or [n, 1]")
        columns[name] = values
    return columns


def _parameters(part: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a request, a tensor or an output; null is as if there were none.

    Raises:
        TypeError: They are something else.
    """
    parameters = part.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise TypeError("parameters are not an object")
    return parameters


def _requested_outputs(document: dict[str, Any]) -> dict[str, bool]:
    """Return the outputs that a request wants, all if it names none, and which of them as bytes."""
    default = bool(_parameters(document).get("binary_data_output"))
    outputs = document.get("outputs")
    if not outputs:
        return dict.fromkeys(OUTPUTS, default)
    return {
        output["name"]: bool(_parameters(output).get("binary_data", default)) for output in outputs
    }


def render(inference: InferenceRequest, request_id: str, answer: Answer) -> Pieces[Response]:
    """Return the response to a request: each output as JSON, or as bytes after the JSON."""
    outputs = []
    tail = b""
    for tensor in _output_tensors(answer):
        if tensor.name not in inference.is_binary:
            continue
        output = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if inference.is_binary[tensor.name]:
            packed = pack(tensor.data)
            tail += packed
            outputs.append(json.dumps(output | {"parameters": {"binary_data_size": len(packed)}}))
        else:
            data = yield from pieces.write_list(tensor.data)
            outputs.append(f'{json.dumps(output)[:-1]}, "data": {data}}}')
    rest = {
        "model_name": NAME,
        "model_version": answer.loaded.model.version,
        "id": inference.id or request_id,
    }
    head = f'{json.dumps(rest)[:-1]}, "outputs": [{", ".join(outputs)}]}}'.encode()
    if not tail:
        return Response(head, media_type="application/json")
    headers = {JSON_LENGTH_HEADER: str(len(head))}
    return Response(head + tail, 200, headers, "application/octet-stream")


def _output_tensors(answer: Answer) -> list[Tensor]:
    classes = answer.loaded.model.data.classes
    predictions = [row["prediction"] for row in answer.predictions]
    datatype = "BYTES" if classes else "FP64"
    tensors = [Tensor("prediction", datatype, [len(predictions)], predictions)]
    if classes:
        probabilities = [
            probability
            for row in answer.predictions
            for probability in row["probabilities"].values()
        ]
        shape = [len(predictions), len(classes)]
        tensors.append(Tensor("probabilities", "FP64", shape, probabilities))
    return tensors


def unpack(data: bytes, datatype: str, size: int) -> list[Any]:
    """Return the values of a binary tensor: little-endian, a text as its length and its bytes.

    Args:
        size: How many there are.

    Raises:
        ValueError, TypeError, struct.error: The bytes are not of that type, or not so many.
    """
    if datatype == "BYTES":
        return _unpack_texts(data, size)
    dtype = numpy_dtype(datatype)
    if len(data) != size * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes are not {size} of {datatype}")
    values: list[Any] = np.frombuffer(data, dtype).tolist()
    return values


def numpy_dtype(datatype: str) -> np.dtype[Any]:
    """Return NumPy's name of a type of the protocol.

    Raises:
        TypeError: There is no such type.
    """
    if datatype == "BOOL":
        return np.dtype("?")
    parts = re.fullmatch(r"(FP|INT|UINT)(8|16|32|64)", datatype)
    if parts is None:
        raise TypeError(f"no datatype {datatype!r}")
    kind, bits = parts.groups()
    return np.dtype(f"<{NUMPY_KINDS[kind]}{int(bits) // 8}")


def _unpack_texts(data: bytes, size: int) -> list[str]:
    texts: list[str] = []
    position = 0
    while position < len(data):
        if len(texts) == size:
            raise ValueError(f"more than {size} texts")
        (length,) = struct.unpack_from("<I", data, position)
        start = position + 4
        position = start + length
        texts.append(data[start:position].decode())
    return texts


def pack(values: list[Any]) -> bytes:
    """Return the bytes of a binary tensor of texts or of FP64; see `unpack`."""
    if not isinstance(values[0], str):
        return np.array(values, "<f8").tobytes()
    texts = [value.encode() for value in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def render_error(error: RequestError) -> Response:
    """Return the response to a request that cannot be answered."""
    message = "; ".join(describe_fault(fault) for fault in error.faults)
    status = 400 if error.status == 422 else error.status
    return JSONResponse({"error": message[:MAX_ERROR]}, status)


def describe_fault(fault: Fault) -> str:
    """Return a fault as text: column, rule, value and row, as far as there are any."""
    parts = [part for part in (fault.column, fault.reason, fault.value) if part is not None]
    if fault.row is not None:
        parts.append(f"(row {fault.row})")
    return " ".join(parts)
