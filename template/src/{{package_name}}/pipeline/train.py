"""Train: `train.parquet` → `artifacts/model.skops`. Refuses what the estimator cannot learn from.

The file holds no pickle and no time: the same rows, config and code give the same bytes.
"""

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import skops.io

from .. import BadInput
from ..config import DATA, MODEL, Config, Data, Model
from ..documents import MODEL as FILE
from ..documents import TRAIN, document, replacing
from ..problem.features import features
from ..problem.model import estimator
from .ingest import inputs, labels


def step(config: Config) -> str:
    with document("train", TRAIN, DATA, MODEL) as said:
        rows = pl.read_parquet(TRAIN)
        save(fit(rows, config.data, config.model), FILE)
        said |= {"rows": rows.height, **config.model.model_dump()}
        said["model_inputs"] = features(inputs(rows.head(1), config.data)).columns
    return f"{config.model.estimator} on {rows.height:,} rows"


def fit(rows: pl.DataFrame, data: Data, model: Model) -> Any:
    """Fit the estimator of `problem/model.py`.

    Raises:
        BadInput: Its name or a param is not known, or it cannot learn from these rows.
    """
    given = features(inputs(rows, data))
    try:
        made = estimator(model.estimator, data.task, given, model.seed, model.params)
        return made.fit(given, labels(rows, data))
    except (TypeError, ValueError) as error:
        raise BadInput(f"{MODEL}: nothing can be trained: {str(error).splitlines()[0]}") from error


def save(fitted: Any, path: Path) -> None:
    """Write a model with skops, less what differs from run to run: memory addresses and times."""
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(fitted))) as came, replacing(path) as new:
        seen: dict[str, str] = {}
        schema = re.sub(
            r'("__id__": |"file": ")(\d+)',
            lambda m: m[1] + seen.setdefault(m[2], str(len(seen))),
            came.read("schema.json").decode(),
        )
        files = {
            n.replace(s := Path(n).stem, seen.get(s, s)): came.read(n) for n in came.namelist()
        }
        with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as kept:
            for name, content in sorted((files | {"schema.json": schema}).items()):
                kept.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
