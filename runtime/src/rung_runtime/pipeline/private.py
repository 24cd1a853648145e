"""Private columns: what the report leaves out of explanations."""

from collections.abc import Collection
from importlib import import_module

from .. import project
from ..records import ExplainedRow, ExplanationsDocument


def private_columns() -> set[str]:
    """Return the columns whose values are not shown: `service.private`, if there is a service."""
    if not project.current().has_loop:
        return set()
    delivery = import_module("..config.delivery", __package__)  # there from level 1 on
    return set(delivery.load_delivery().service.private) if delivery.DELIVERY.exists() else set()


def public(document: ExplanationsDocument, hidden: Collection[str]) -> ExplanationsDocument:
    """Return a document without columns that have become private since it was written."""
    return document.model_copy(
        update={
            "columns": [part for part in document.columns if part.column not in hidden],
            "examples": [_without(example, hidden) for example in document.examples],
        }
    )


def _without(example: ExplainedRow, hidden: Collection[str]) -> ExplainedRow:
    """Return an example whose private columns are one number."""
    private = [part.contribution for part in example.contributions if part.column in hidden]
    if not private:
        return example
    shown = [part for part in example.contributions if part.column not in hidden]
    total = (example.private or 0.0) + sum(private)
    return example.model_copy(update={"contributions": shown, "private": total})
