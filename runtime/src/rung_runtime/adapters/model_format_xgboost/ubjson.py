"""Whether a model in UBJSON has what it announces: XGBoost reserves memory before it looks.

https://ubjson.org: a value is a letter for its type and its bytes; arrays of numbers have their
length in front.
"""

from collections.abc import Iterator

SIZES = {"Z": 0, "N": 0, "T": 0, "F": 0, "i": 1, "U": 1, "C": 1, "I": 2, "l": 4, "d": 4}
SIZES |= {"L": 8, "D": 8}
INTEGERS = "iUIlL"
TEXTS = "SH"
MAX_DEPTH = 100  # XGBoost reads each within the last, and ends the process where its stack ends
BEGIN = b"{L"  # of an object whose first key has its length in 64 bits, as XGBoost writes it
# How many there are of something that memory is reserved for.
COUNTS = (b"num_class", b"num_nodes", b"num_target", b"num_trees", b"size_leaf_vector")


def require_whole(content: bytes) -> None:
    """Check that each array and text ends within the file, and that no count is larger than it.

    Raises:
        ValueError: One does not, or it is not UBJSON.
    """
    if not content.startswith(BEGIN):
        raise ValueError("it is not a model of XGBoost in UBJSON")
    try:
        for key, value in _texts(content):
            if key in COUNTS and not 0 <= int(value) <= len(content):
                raise ValueError(f"it announces {value.decode()} as {key.decode()}")
    except IndexError:
        raise ValueError("it ends too early") from None


def _texts(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the texts that are values of objects, with their keys.

    Raises:
        ValueError: It is malformed.
        IndexError: It ends too early.
    """
    position = 0
    # Of each array or object that is open: its bracket, and how many values follow; -1: unknown.
    open_values: list[list[int]] = []
    key = b""
    while True:
        if open_values:
            bracket, left = open_values[-1]
            end = ord("]") if bracket == ord("[") else ord("}")
            if left == 0 or (left < 0 and content[position] == end):
                position += left < 0
                open_values.pop()
                if not open_values:
                    return
                continue
            open_values[-1][1] -= left > 0
            if bracket == ord("{"):
                length, position = _integer(content, position)
                key, position = _slice(content, position, length)
        kind = chr(content[position])
        position += 1
        if kind in SIZES:
            _, position = _slice(content, position, SIZES[kind])
        elif kind in TEXTS:
            length, position = _integer(content, position)
            text, position = _slice(content, position, length)
            yield key, text
        elif kind in "[{":
            count, position = _header(content, position)
            if len(open_values) == MAX_DEPTH:
                raise ValueError(f"it has values within values, more than {MAX_DEPTH} deep")
            open_values.append([ord(kind), count])
        else:
            raise ValueError(f"it has a value of the unknown type {kind!r}")


def _header(content: bytes, position: int) -> tuple[int, int]:
    """Return how many values of an array or an object follow, -1 if unknown, and where.

    Those of an array of numbers are passed over.
    """
    kind = ""
    if content[position] == ord("$"):
        kind = chr(content[position + 1])
        if kind not in SIZES:
            raise ValueError(f"it has an array of the unknown type {kind!r}")
        position += 2
    if content[position] != ord("#"):
        if kind:
            raise ValueError("it has an array of numbers without a length")
        return -1, position
    count, position = _integer(content, position + 1)
    if kind:
        _, position = _slice(content, position, count * SIZES[kind])
        return 0, position
    if count > len(content):
        raise ValueError(f"it announces {count:,} values")
    return count, position


def _integer(content: bytes, position: int) -> tuple[int, int]:
    kind = chr(content[position])
    if kind not in INTEGERS:
        raise ValueError("it has a length that is not a number")
    value, position = _slice(content, position + 1, SIZES[kind])
    return int.from_bytes(value, "big", signed=kind != "U"), position


def _slice(content: bytes, position: int, length: int) -> tuple[bytes, int]:
    end = position + length
    if length < 0 or end > len(content):
        raise ValueError(f"it announces {length:,} bytes, and ends before")
    return content[position:end], end
