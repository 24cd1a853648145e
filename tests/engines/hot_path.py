"""Time the parts of answering one row, in one thread and without HTTP: see bench_service.py."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rung_runtime.config.delivery import Service
from rung_runtime.pipeline.ingest import inputs
from rung_runtime.prediction_log.writer import LoggedRequest, PredictionLog
from rung_runtime.serving.app import render
from rung_runtime.serving.batcher import Answer
from rung_runtime.serving.loaded_model import load
from rung_runtime.serving.pieces import at_once
from rung_runtime.serving.rows import parse_rows

REPEATS = 2_000


def median(call: Callable[[], Any]) -> float:
    """Return the median of microseconds that a call takes."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return 1e6 * sorted(times)[REPEATS // 2]


def main() -> None:
    """Print the microseconds of each part as JSON, for a package and the body of a request."""
    loaded = load(Path(sys.argv[1]))
    model = loaded.model
    contract = model.request_contract
    body = Path(sys.argv[2]).read_bytes()
    settings = Service(log="predictions")
    log = PredictionLog(settings)
    rows = at_once(parse_rows(body, contract, 1))
    frame, _ = loaded.reader.read(rows)
    columns = inputs(frame, contract)
    features = model.features(columns)
    compiled = model.compiled
    if compiled is None:
        raise SystemExit("the package has no compiled model")
    matrix = compiled.columns.matrix(features)
    y_pred = model.predict(frame)
    request = [LoggedRequest("0" * 32, 1, None)]

    def answer() -> Any:
        return at_once(render(settings, "0" * 32, Answer(loaded, model.answers(y_pred))))

    parts: dict[str, Callable[[], Any]] = {
        "JSON": lambda: at_once(parse_rows(body, contract, 1)),
        "contract": lambda: loaded.reader.frame(loaded.reader.plain_values(rows) or [], rows),
        "inputs": lambda: inputs(frame, contract),
        "features": lambda: model.features(columns),
        "frame to matrix": lambda: compiled.columns.matrix(features),
        "model": lambda: compiled._run(matrix),
        "response": answer,
        "log": lambda: log.add(loaded, request, rows, frame, y_pred),
    }
    print(json.dumps({name: median(call) for name, call in parts.items()}))


if __name__ == "__main__":
    main()
