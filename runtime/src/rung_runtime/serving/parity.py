"""Parity: whether a service answers what its model answers in this process."""

import json
import math
import sys
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import (
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

import polars as pl

from .. import RefusedError
from ..escaping import visible
from ..model_package import Model, Prediction
from .check_token import HEADER, read_token
from .front import api_keys
from .rows import Row, rows_from_frame

TOLERANCE = 1e-9  # between a number of the service and that of the model
MAX_RESPONSE_BYTES = 64 << 20
MAX_REASON_BYTES = 500
MAX_ANSWER = 500  # characters of an answer in a message
BATCH_ROWS = 100
TIMEOUT_SECONDS = 30


def check_parity(url: str, rows: pl.DataFrame, model: Model) -> str:
    """Check that a service answers what a model answers here, to 1e-9.

    Args:
        url: The address of the service, without a path.
        rows: As `problem.data.load` returns them; columns that are not features are not sent.

    Returns:
        A sentence with the number of rows, and the greatest difference.

    Raises:
        RefusedError: It answers otherwise, with another model, or not at all.
    """
    typed = model.read(rows.select(*model.request_contract.columns))
    expected = model.answers(model.predict(typed))
    requests = rows_from_frame(typed, model.request_contract)
    opener = build_opener(ProxyHandler({}), _NoRedirects)
    greatest = 0.0
    for start in range(0, len(requests), BATCH_ROWS):
        end = start + BATCH_ROWS
        answers = _ask(opener, url, requests[start:end], model)
        for index, (ours, theirs) in enumerate(zip(expected[start:end], answers, strict=True)):
            difference = answer_difference(ours, theirs)
            if difference > TOLERANCE:
                answer = visible(theirs)[:MAX_ANSWER]
                raise RefusedError(
                    f"row {start + index}: {url} answers {answer}, the model here {ours}"
                )
            greatest = max(greatest, difference)
    count = "1 row" if len(requests) == 1 else f"{len(requests):,} rows"
    return f"{count}: {url} answers as the model does here, to within {greatest:.1g}"


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect: a key of the service would be sent along, to whatever host it names."""

    def redirect_request(self, *_: object) -> None:
        """Return no request, which makes an error of the redirect."""


def _ask(opener: OpenerDirector, url: str, rows: list[Row], model: Model) -> list[Any]:
    """Return the predictions of a service, whatever they are.

    Raises:
        RefusedError: It does not answer, or with another model.
    """
    body = json.dumps({"rows": rows}).encode()
    headers = {"Content-Type": "application/json"}
    if token := read_token():
        headers[HEADER] = token  # keeps these requests out of the log
    if keys := api_keys():
        headers["Authorization"] = f"Bearer {keys[0]}"
    try:
        request = Request(f"{url}/predict", body, headers)
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            document = json.loads(response.read(MAX_RESPONSE_BYTES))
    except HTTPError as error:
        reason = visible(error.read(MAX_REASON_BYTES).decode("utf-8", "replace"))
        raise RefusedError(f"{url} answers {error.code}: {reason}") from None
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        raise RefusedError(f"{url} does not answer: {error}") from None
    if not isinstance(document, dict) or document.get("model_digest") != model.digest:
        version = document.get("version") if isinstance(document, dict) else None
        raise RefusedError(f"{url} serves another model, version {version}")
    predictions: list[Any] = document["predictions"]
    return predictions


def answer_difference(ours: Prediction, theirs: Any) -> float:
    """Return the greatest difference of two answers to a row.

    Args:
        ours: An answer as `Model.answers` gives it.
        theirs: What the service answers, which may be anything.

    Returns:
        Of the probabilities of all classes, or of the values of a regression; infinity if theirs
        is not an answer, or names a class that is not the most likely one.
    """
    if not isinstance(theirs, dict):
        return math.inf
    if "probabilities" not in ours:
        return _greatest_difference({"": ours["prediction"]}, {"": theirs.get("prediction")})
    probabilities: Any = theirs.get("probabilities")
    difference = _greatest_difference(ours["probabilities"], probabilities)
    if math.isinf(difference):
        return math.inf
    # Of classes that are equally likely, either may be named.
    label = theirs.get("prediction")
    if not isinstance(label, str):
        return math.inf
    if probabilities.get(label, -1.0) < max(probabilities.values()) - TOLERANCE:
        return math.inf
    return difference


def _greatest_difference(ours: Mapping[str, str | float], theirs: Any) -> float:
    if not isinstance(theirs, dict) or theirs.keys() != ours.keys():
        return math.inf
    if not all(_is_number(value) for value in theirs.values()):
        return math.inf
    return max(abs(float(ours[name]) - float(theirs[name])) for name in ours)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max
