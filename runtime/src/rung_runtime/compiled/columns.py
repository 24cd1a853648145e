"""What a compiled model takes: a matrix of numbers, made of the columns that `features` returns."""

import json
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

FEW_ROWS = 16  # up to which Python is faster than a query, whose cost hardly depends on the rows
MISSING = float("nan")


class Columns:
    """The columns of the matrix, in its order.

    Numbers are themselves, a category is its place in its list, and what is missing is NaN.

    Attributes:
        names: All of them.
        categories: By column, of those that have categories.
    """

    def __init__(self, names: list[str], categories: dict[str, list[str]]) -> None:
        self.names = names
        self.categories = categories
        self._empty = [pl.Series(name, [], pl.Enum(known)) for name, known in categories.items()]
        # By position: what each value is in the matrix; None for a column of numbers.
        self._codes: list[dict[Any, float] | None] = [
            {known: float(code) for code, known in enumerate(categories[name])}
            if name in categories
            else None
            for name in names
        ]

    @classmethod
    def of_frame(cls, frame: pl.DataFrame) -> Self:
        """Return the columns of what `features` returned.

        Raises:
            TypeError: A column holds neither numbers nor categories.
        """
        categories = {}
        for name, dtype in frame.schema.items():
            if isinstance(dtype, pl.Enum):
                categories[name] = dtype.categories.to_list()
            elif not dtype.is_numeric() and dtype != pl.Boolean:
                raise TypeError(f"column {name} of the features is {dtype}, not a number")
        return cls(frame.columns, categories)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        content = json.loads(text)
        return cls(content["names"], content["categories"])

    def to_json(self) -> str:
        """Return the columns as JSON."""
        content = {"names": self.names, "categories": self.categories}
        return json.dumps(content, ensure_ascii=False)

    def matrix(self, frame: pl.DataFrame) -> NDArray[np.float64]:
        """Return (n, columns) numbers.

        Args:
            frame: (n, …) what `features` returned.

        Raises:
            ValueError: It has other columns or categories than in training.
        """
        if frame.columns != self.names:
            raise ValueError("features returned other columns than in training")
        for empty in self._empty:
            # To compare the types in Python takes as long as a row takes the model.
            try:
                empty.clear().append(frame[empty.name])
            except pl.exceptions.PolarsError:
                raise ValueError(
                    f"features returned other categories of {empty.name} than in training"
                ) from None
        if 0 < len(frame) <= FEW_ROWS:
            return np.array([self._numbers(row) for row in frame.rows()])
        numbers = frame.select(pl.all().to_physical().cast(pl.Float64))
        return numbers.to_numpy(order="c")

    def _numbers(self, row: tuple[Any, ...]) -> list[float]:
        return [
            MISSING if value is None else float(value) if codes is None else codes[value]
            for value, codes in zip(row, self._codes, strict=True)
        ]
