"""The document that `ml evaluate` writes, for tests that score predictions in process."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

Module = Callable[[str], ModuleType]


def metrics_document(module: Module, scores: Any) -> Any:
    """Return scores as the document of a small and fast model that leaks nothing."""
    records = module("records")
    model = records.ModelFacts(digest=f"sha256:{'0' * 64}", megabytes=1.0, latency_ms=1.0)
    return records.MetricsDocument(
        **dict(scores), importance=[], leaks=records.Leaks(rows=0), model=model
    )
