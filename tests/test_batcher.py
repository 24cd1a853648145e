"""The thread that predicts, apart from any model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


def test_a_batcher_that_is_stopped_answers_those_who_wait_and_ends(
    module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sign to stop may be in the queue behind requests of a batch, and counts even so."""
    parts = module("serving.batcher")
    release = threading.Event()

    def outcomes(_: Any, batch: list[Any], loaded: Any) -> list[Any]:
        release.wait(20)
        return [parts.Outcome(request, parts.Answer(loaded, request.rows)) for request in batch]

    monkeypatch.setattr(parts.Batcher, "_outcomes", outcomes)
    batcher = parts.Batcher(loaded=None, log=None, max_waiting_rows=10, batch_rows=10)

    async def run() -> list[Any]:
        batcher.start()
        first, second, third = (
            asyncio.create_task(batcher.ask(name, [{"x": name}])) for name in "abc"
        )
        await asyncio.sleep(0.2)  # one is being answered, and two wait
        batcher.stop()
        release.set()
        return [answer.predictions for answer in await asyncio.gather(first, second, third)]

    assert asyncio.run(run()) == [[{"x": name}] for name in "abc"]
    batcher.thread.join(20)
    assert not batcher.thread.is_alive()
    assert batcher.waiting_rows == 0
