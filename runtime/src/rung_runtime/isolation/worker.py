"""Worker: the process in which a package's code runs. It answers by a pipe, and that is all.

`model.opened` starts it, with a folder as its argument. A request is a line of JSON and bytes, as
many as the line says; so is an answer. What the package prints goes elsewhere, and what it writes
into the pipe is read as numbers by a parent that knows how many there must be.
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from .confinement import confine


def main() -> None:
    """Confine this process, open the package, and answer until there are no more requests."""
    folder = Path(sys.argv[1])
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)
    unconfined = confine(folder)
    send(answers, {"unconfined": unconfined})

    from ..model_package import opened

    model: Any = None
    while line := requests.readline():
        request = json.loads(line)
        body = requests.read(request["bytes"])
        try:
            if request["do"] == "open":
                model = opened(folder / "package", request["package_digest"])
                send(answers, {})
            else:
                send(answers, *answer(model, request, body))
        except BaseException as error:  # of the package's code: all of it is only told
            reason = (str(error).strip().splitlines() or [""])[0]
            send(answers, {"error": type(error).__name__, "message": reason[:500]})


def answer(model: Any, request: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the answer to a request about (n, …) typed rows: facts, and numbers."""
    import numpy as np
    import polars as pl

    from ..config import Data
    from ..pipeline.recipes import Recipe, out_of_fold

    rows = pl.read_ipc_stream(io.BytesIO(body))
    if request["do"] == "failures":
        return {"failures": model.failures(rows)}, b""
    if request["do"] == "predict":
        y_pred = model.predict(rows)
    else:
        recipe = Recipe(model.fitted, model.features, model.asked)
        y_pred = out_of_fold([recipe], rows, Data.model_validate(request["data"]))[1][0]
    numbers = np.ascontiguousarray(y_pred, dtype="<f8")
    return {"shape": numbers.shape}, numbers.tobytes()


def send(answers: BinaryIO, facts: dict[str, Any], body: bytes = b"") -> None:
    """Write a line of JSON and bytes."""
    line = json.dumps(facts | {"bytes": len(body)}, default=str)
    answers.write(f"{line}\n".encode() + body)
    answers.flush()


if __name__ == "__main__":
    main()
