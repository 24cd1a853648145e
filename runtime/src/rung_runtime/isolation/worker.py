"""The process in which a package's code runs. It answers requests from a pipe, and does no more.

`model.open_isolated` starts it. Its arguments are a folder, and the modules that it has to do
without. What the package prints goes to a log, and what it writes into the pipe is read as numbers
by a parent that knows how many there must be. The format of the messages is that of `pipe`.
"""

import io
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from .confinement import confine
from .pipe import Message, write_message

MAX_MESSAGE = 500  # characters of an error


def main() -> None:
    """Confine this process, open the package, and answer until there are no more requests."""
    folder = Path(sys.argv[1])
    requests = os.fdopen(os.dup(0), "rb")
    responses = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    unconfined = confine(folder)
    write_message(responses, Message({"unconfined": unconfined}))
    absent: Any = None
    for module in sys.argv[2:]:
        sys.modules[module] = absent  # importing it fails, as if it were not installed

    from ..model_package import load_package

    model: Any = None
    while line := requests.readline():
        facts = json.loads(line)
        request = Message(facts, requests.read(facts["bytes"]))
        try:
            if facts["do"] == "open":
                package = folder / "package"
                model = load_package(package, facts["package_digest"], threads=facts["threads"])
                response = Message({})
            else:
                response = respond(model, request)
            write_message(responses, response)
        except BaseException as error:  # of the package's code: the parent is only sent its text
            reason = (str(error).strip().splitlines() or [""])[0]
            facts = {"error": type(error).__name__, "message": reason[:MAX_MESSAGE]}
            write_message(responses, Message(facts | {"where": _line_of_problem(error)}))


def _line_of_problem(error: BaseException) -> str:
    """Return the line of the package's `problem/` that failed, if one did."""
    for call in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(call.filename).parent.name == "problem":
            return f"problem/{Path(call.filename).name}, line {call.lineno}"
    return ""


def respond(model: Any, request: Message) -> Message:
    """Return the response to a request about (n, …) typed rows.

    Returns:
        The failures of the rows, or the shape of the predictions and their bytes; of each rule of
        `problem/` that rows break, the name, and a bit for each row.
    """
    import numpy as np
    import polars as pl

    rows = pl.read_ipc_stream(io.BytesIO(request.body))
    task = request.facts["do"]
    if task == "failures":
        return Message({"failures": model.failures(rows)})
    if task == "rules":
        broken = [failure for failure in model.all_failures(rows) if failure["kind"] == "custom"]
        bits = np.zeros((len(broken), rows.height), dtype=bool)
        for row_bits, failure in zip(bits, broken, strict=True):
            row_bits[failure["rows"]] = True
        names = [failure["rule"] for failure in broken]
        return Message({"rules": names}, np.packbits(bits, axis=1).tobytes())
    if task == "reply":
        seconds, predictions = model.reply(rows, request.facts["tries"])
        if predictions is None:
            return Message({"seconds": seconds})
        return _numbers(predictions, seconds=seconds)
    if task == "predict":
        y_pred = model.predict(rows)
    else:
        from ..config import Data
        from ..pipeline.recipes import Recipe, out_of_fold  # which imports scikit-learn

        recipe = Recipe(model.fitted, model.features, model.request_contract)
        data = Data.model_validate(request.facts["data"])
        _, (y_pred,) = out_of_fold([recipe], rows, data)
    return _numbers(y_pred)


def _numbers(y_pred: Any, **facts: Any) -> Message:
    import numpy as np

    numbers = np.ascontiguousarray(y_pred, dtype="<f8")
    return Message({"shape": numbers.shape, **facts}, numbers.tobytes())


if __name__ == "__main__":
    main()
