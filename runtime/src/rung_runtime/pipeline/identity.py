"""Identity: which row is which, by what the source says about it and never by its target.

A row is recognized by its keys, else by the values of `identity` in `config/data.yaml`, else by all
of its features, each with a counter among rows that are equal. So it stays the same row when other
rows are appended, when its label is corrected, and when another column is left out or retyped.
"""

import json
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..config import Data

Numbers = NDArray[np.uint64]

# Files of a package.
DIGESTS = "training_rows.bin"
DESCRIPTION = "training_rows.json"
SALT_LENGTH = 16  # bytes, the most that BLAKE2b takes


def identifying(data: Data) -> list[str]:
    """Return the columns that say which row is which, in an order of their own."""
    columns = data.keys or data.identity or [name for name in data.columns if name != data.target]
    return sorted(columns)


def identities(rows: pl.DataFrame, columns: list[str]) -> pl.Series:
    """Number each row by its values in these columns and its position among equal rows.

    Args:
        rows: (n, …) rows as the source has them, or typed ones; numbers are compared as numbers,
            so that 7 and 7.0 are equal.
        columns: Their names; one that the rows lack counts for nothing.

    Returns:
        (n,) unsigned 64-bit digests (BLAKE2b), the same in every version of Polars.
    """
    present = [name for name in columns if name in rows.columns]
    # By number: Polars takes a name such as ^a$ for a pattern.
    table = pl.DataFrame([rows[name].alias(str(index)) for index, name in enumerate(present)])
    text = pl.concat_str(
        [_as_text(name, dtype) for name, dtype in table.schema.items()], separator="\x1f"
    )
    table = table.select(text.alias("text")) if present else rows.select(pl.lit("").alias("text"))
    texts = table["text"]
    numbers = _digests(texts + "\x1e0")
    repeated = texts.is_duplicated()
    if repeated.any():
        equal = table.filter(repeated)
        counts = equal.select(pl.int_range(pl.len()).over("text").cast(pl.String)).to_series()
        numbers[repeated.to_numpy()] = _digests(equal["text"] + "\x1e" + counts)
    return pl.Series("identity", numbers)


def _digests(texts: pl.Series) -> Numbers:
    """Return the digest of each text, (n,)."""
    digests = [blake2b(text, digest_size=8).digest() for text in texts.cast(pl.Binary)]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return a column as text, whole numbers without a fraction."""
    value = pl.col(name)
    if dtype.is_nested() or dtype == pl.Binary:
        return pl.lit("")
    text = value.cast(pl.String).str.strip_chars().fill_null("")
    return text.str.replace(r"^([-+]?\d+)\.0+$", "$1")


def shuffled(identity: pl.Series, salt: bytes) -> Numbers:
    """Return (n,) numbers that are as good as random, from a salt of up to 16 bytes."""
    numbers = identity.to_numpy().astype("<u8").tobytes()
    digests = [
        blake2b(numbers[first : first + 8], digest_size=8, salt=salt).digest()
        for first in range(0, len(numbers), 8)
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


class Training(NamedTuple):
    """What a package says about the rows that its model was trained on."""

    columns: list[str]  # that identify a row
    digests: Numbers  # sorted
    salt: bytes

    def includes(self, rows: pl.DataFrame) -> NDArray[np.bool_] | None:
        """Check which rows of a source the model was trained on; None if that is unknown.

        Args:
            rows: (n, …) all rows of the source as it is, in its order, so that equal rows are
                counted as they were.
        """
        if not set(self.columns) <= set(rows.columns):
            return None
        return np.isin(shuffled(identities(rows, self.columns), self.salt), self.digests)


def write(folder: Path, columns: list[str], identity: pl.Series, model_digest: str) -> None:
    """Write the digests of training rows into a package.

    They are salted with the model and hold nothing of a row that could be read back: whoever has
    the whole row can ask whether it was trained on, nobody else learns anything.
    """
    salt = model_digest.removeprefix("sha256:")[:SALT_LENGTH].encode()
    digests = np.sort(shuffled(identity, salt))
    (folder / DIGESTS).write_bytes(digests.astype("<u8").tobytes())
    description = {"columns": columns, "salt": salt.decode(), "rows": len(digests)}
    text = json.dumps(description, indent=2, ensure_ascii=False)
    (folder / DESCRIPTION).write_text(text, "utf-8")


def read(folder: Path) -> Training | None:
    """Read the digests from a package; None if it was made before packages had them."""
    if not (folder / DESCRIPTION).exists():
        return None
    description = json.loads((folder / DESCRIPTION).read_text("utf-8"))
    digests = np.frombuffer((folder / DIGESTS).read_bytes(), dtype="<u8")
    return Training(
        columns=description["columns"],
        digests=digests.astype(np.uint64),
        salt=description["salt"].encode(),
    )
