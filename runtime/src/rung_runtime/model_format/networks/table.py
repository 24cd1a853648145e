"""A table as a network takes it: standardized numbers, and categories as codes of embeddings."""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ...compiled.columns import Columns

# Codes of every category column; those of its categories follow.
UNSEEN = 0  # in too few training rows, or in none
MISSING = 1
FIRST_CATEGORY = 2
MIN_ROWS = 5  # of a category that gets a code of its own


class Inputs(NamedTuple):
    """What a network takes."""

    numbers: NDArray[np.float64]  # (n, width)
    codes: NDArray[np.int64]  # (n, category columns)


class Number(BaseModel):
    """How a column of numbers is standardized."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    mean: float
    scale: float
    has_gaps: bool  # in training, so that a further input says which rows have one


class Category(BaseModel):
    """Which code each category has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    codes: list[int]  # by the category's place in its list; the last is that of a gap

    @property
    def size(self) -> int:
        """Return how many codes there are."""
        return max([MISSING, *self.codes]) + 1


class Table(BaseModel):
    """What was learned of the columns of a table, in the order of its matrix.

    A gap in a number becomes the mean. Where training had gaps, an indicator tells them from it.

    Attributes:
        names: All columns.
        numbers: Those that are standardized.
        categories: Those that get an embedding.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: list[str]
    numbers: list[Number]
    categories: list[Category]

    @classmethod
    def of_matrix(cls, matrix: NDArray[np.float64], columns: Columns) -> Self:
        """Learn from training rows.

        Args:
            matrix: (n, columns) as `Columns.matrix` returns it.
            columns: What its columns are.
        """
        numbers = []
        categories = []
        for name, values in zip(columns.names, matrix.T, strict=True):
            if name in columns.categories:
                categories.append(_category(name, values, len(columns.categories[name])))
            else:
                numbers.append(_number(name, values))
        return cls(names=columns.names, numbers=numbers, categories=categories)

    def encode(self, matrix: NDArray[np.float64]) -> Inputs:
        """Return what a network takes of (n, columns) rows."""
        chosen = matrix[:, self.positions([number.name for number in self.numbers])]
        is_known = np.isfinite(chosen)
        mean = np.array([number.mean for number in self.numbers])
        scale = np.array([number.scale for number in self.numbers])
        standardized = (np.where(is_known, chosen, mean) - mean) / scale
        indicators = ~is_known[:, self.with_gaps]
        codes = np.zeros((len(matrix), len(self.categories)), dtype=np.int64)
        places = matrix[:, self.positions([category.name for category in self.categories])]
        for index, category in enumerate(self.categories):
            last = len(category.codes) - 1
            place = np.where(np.isnan(places[:, index]), last, places[:, index])
            codes[:, index] = np.array(category.codes)[place.astype(np.int64)]
        return Inputs(np.hstack([standardized, indicators]), codes)

    def positions(self, names: list[str]) -> list[int]:
        """Return the positions of columns in the matrix."""
        place = {name: index for index, name in enumerate(self.names)}
        return [place[name] for name in names]

    @property
    def with_gaps(self) -> list[int]:
        """Return the positions, among the numbers, of those that have an indicator."""
        return [index for index, number in enumerate(self.numbers) if number.has_gaps]

    @property
    def width(self) -> int:
        """Return how many numbers a network takes for each row."""
        return len(self.numbers) + len(self.with_gaps)

    @property
    def sizes(self) -> list[int]:
        """Return how many codes each column of categories has."""
        return [category.size for category in self.categories]


def _number(name: str, values: NDArray[np.float64]) -> Number:
    is_known = np.isfinite(values)
    known = values[is_known]
    if not len(known):
        return Number(name=name, mean=0.0, scale=1.0, has_gaps=True)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(known.mean())
        scale = float(known.std())
    if not (np.isfinite(mean) and np.isfinite(scale)):  # their squares are too large
        largest = float(np.abs(known).max())
        mean = float((known / largest).mean()) * largest
        scale = float((known / largest).std()) * largest
    # A constant column has no scale, but for what rounding leaves.
    is_constant = scale <= 1e-12 * abs(mean)
    return Number(
        name=name,
        mean=mean,
        scale=1.0 if is_constant else scale,
        has_gaps=not is_known.all(),
    )


def _category(name: str, places: NDArray[np.float64], size: int) -> Category:
    is_missing = np.isnan(places)
    counts = np.bincount(places[~is_missing].astype(np.int64), minlength=size)
    has_code = counts >= MIN_ROWS
    codes = np.where(has_code, FIRST_CATEGORY + np.cumsum(has_code) - 1, UNSEEN)
    missing = MISSING if is_missing.any() else UNSEEN
    return Category(name=name, codes=[*codes.tolist(), missing])
