"""Large documents are parsed and written in pieces, with the results of Python's json."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rung_runtime.serving import pieces

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(), max_size=5),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda children: st.one_of(
        st.lists(children, max_size=4), st.dictionaries(st.text(max_size=3), children, max_size=4)
    ),
    max_leaves=30,
)
BROKEN = [
    *("", " ", "[", "]", "{", "}", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1]]", "[1] 2", "nul"),
    *("{}}", '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', "{'a': 1}", "{1: 2}", '{"a" 1}'),
    *('{"rows": [{"a": 1}, {"a": ]}', '{"rows": [{"a": 1} {"a": 2}]}', '{"a": [1, 2}'),
    *('["\n"]', '{"\n": 1}', "[01]", "[1.]", "[+1]", "[.5]", f"[{'9' * 5_000}]", "[" * 2_000),
]
ODD = [
    "[NaN, Infinity, -Infinity]",
    '{"a": 1, "a": [2]}',
    " [ 1 , { } , [ ] ] \n",
    '{"" : {}}',
    "7",
]


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "SMALL_BYTES", -1)
    monkeypatch.setattr(pieces, "SMALL_LIST", 3)


def parsed(body: bytes) -> Any:
    return pieces.at_once(pieces.parse(body))


@given(DOCUMENTS, st.sampled_from([None, 2]), st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]))
def test_what_is_parsed_in_pieces_is_what_json_parses(
    document: Any, indent: int | None, encoding: str
) -> None:
    body = json.dumps(document, indent=indent, ensure_ascii=False)
    assert parsed(body.encode(encoding, "surrogatepass")) == document


@pytest.mark.parametrize("text", ODD)
def test_what_json_forgives_is_forgiven_in_pieces_too(text: str) -> None:
    assert repr(parsed(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: repr(text[:20]))
def test_what_is_not_json_is_not_json_in_pieces_either(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        json.loads(text.encode())
    with pytest.raises((ValueError, RecursionError)):
        parsed(text.encode())


@given(st.lists(DOCUMENTS, max_size=10))
def test_what_is_written_in_pieces_is_what_json_writes(values: list[Any]) -> None:
    written = pieces.at_once(pieces.write_list(values))
    assert written == json.dumps(values, ensure_ascii=False)


def test_characters_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "SCANNED_BYTES", 7)
    assert pieces.at_once(pieces.count(b"[,{x" * 50, b",[{")) == 150


def test_others_have_their_turn_between_the_pieces_of_each_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of two large documents one is parsed at a time; whoever is ready never waits for a whole."""
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 0)
    body = json.dumps({"rows": [{"a": 1}] * 20}).encode()
    order: list[str] = []

    async def large(turns: pieces.Turns, name: str) -> None:
        await turns.run(pieces.parse(body))
        order.append(name)

    async def run() -> None:
        turns = pieces.Turns()
        tasks = [asyncio.create_task(large(turns, name)) for name in ("first", "second")]
        for _ in range(15):
            await asyncio.sleep(0)
            order.append("small")
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert order[:15] == ["small"] * 15
    assert order[15:] == ["first", "second"]
