"""A package in service: the model, the profile of its training, and what it was asked since."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from .. import project
from ..artifacts import now
from ..compiled import edge_rows
from ..config import Column, Data
from ..explanations import Explainer, Subject, background, background_size, open_explainer
from ..model_package import Model, Profile, load_package
from ..pipeline.ingest import inputs
from ..pipeline.profiles import ColumnProfile
from .metrics import Distributions
from .pieces import WRITE
from .plain_rows import PlainReader
from .rows import Row, frame_from_rows, rows_from_frame


@dataclass(frozen=True)
class LoadedModel:
    """A package in service."""

    model: Model
    profile: Profile
    distributions: Distributions  # of the rows that it was sent, and of its predictions
    since: str = field(default_factory=now)

    @cached_property
    def reader(self) -> PlainReader:
        """Return what reads the rows of requests."""
        return PlainReader(self.model)

    @cached_property
    def ids_json(self) -> str:
        """Return the members of an answer that say which model it is of, as JSON."""
        ids = {"version": self.model.version, "model_digest": self.model.digest}
        return WRITE(ids)[1:-1]

    @cached_property
    def subject(self) -> Subject:
        """Return the model as an explainer is given it."""
        contract = self.model.request_contract
        rows = background(
            self.profile["columns"], contract, background_size(len(contract.features))
        )
        return Subject(self.model.predict, rows, contract)

    @cached_property
    def explainer(self) -> Explainer:
        """Return the explainer that the project names.

        Raises:
            UsageError: There is none of that name, or a library that it needs is not installed.
        """
        return open_explainer(project.current().explainer, self.subject)

    @property
    def example(self) -> Row:
        """A row of the median, or the most frequent value, of each column in the training data."""
        summaries = self.profile["columns"]
        return {
            name: typical_value(column, summaries[name])
            for name, column in self.model.request_contract.columns.items()
        }


def load(folder: Path, package_digest: str | None = None) -> LoadedModel:
    """Open a package, and predict once, so that no caller waits for what is done only once.

    Args:
        folder: The package.
        package_digest: The digest that it must have; None accepts any.

    Raises:
        UsageError: It is missing, damaged or another one. None of its code has run then.
    """
    model = load_package(folder, package_digest, threads=1)  # others serve callers
    profile: Profile = json.loads((folder / "profile.json").read_text("utf-8"))
    loaded = LoadedModel(model, profile, Distributions(profile, model.data))
    with suppress(Exception):  # of problem/, for a row that nobody has sent
        model.predict(model.read(frame_from_rows([loaded.example], model.request_contract)))
    return loaded


def why_not_answering(folder: Path) -> str:
    """Return why a package does not answer with the libraries that are installed; "" if it does.

    See `ask_at_edges`.
    """
    try:
        ask_at_edges(load(folder))
    except Exception as error:  # of problem/, too
        return f"{type(error).__name__}: {error}"
    return ""


def ask_at_edges(loaded: LoadedModel) -> None:
    """Have a package predict a typical row, and rows at the edges of its contract.

    Raises:
        Exception: Its code fails, or a library of it is missing.
    """
    model = loaded.model
    contract = model.request_contract
    typical = inputs(model.read(frame_from_rows([loaded.example], contract)), contract)
    model.predict(pl.concat([typical, edge_rows(typical, contract)]))


def typical_value(column: Column, summary: ColumnProfile) -> Any:
    """Return a value that is typical of a column, as JSON has it; None if nothing is known.

    Args:
        column: The column's contract.
        summary: The column's part of the profile.
    """
    if counts := summary.get("counts"):
        most_frequent = max(counts, key=counts.__getitem__)
        return most_frequent == "true" if column.type == "boolean" else most_frequent
    percentiles = summary.get("percentiles")
    if not percentiles:
        return None
    if column.type == "text":
        return "some words"
    median = percentiles[50]
    if column.type == "datetime":
        time = datetime.fromtimestamp(median, UTC).replace(tzinfo=None)
        contract = Data.model_construct(columns={"time": column})
        return rows_from_frame(pl.DataFrame({"time": [time]}), contract)[0]["time"]
    return int(median) if column.type == "integer" else float(median)
