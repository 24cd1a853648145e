"""Propose a contract for rows that nobody has described yet, and say why."""

from dataclasses import dataclass, field

import polars as pl

from ..config import Data, Task
from ..exceptions import UsageError
from ..pipeline.ingest import typed
from ..pipeline.leaks import predict_alone, visible_values
from ..pipeline.subjects import Subject, find_subject
from . import column_types
from .column_limits import limit_column, may_count_time
from .column_names import ID
from .draft import Draft
from .header import check_header, find_column
from .identifiers import Useless, find_useless, is_text
from .split_choice import NO_GROUP, choose_split, split_doubts
from .target import OTHER, Target, read_target
from .wording import quote_all

MIN_ROWS = 50  # in `min_rows`, unless half of the rows are more


@dataclass
class _Described:
    """What was decided about the columns besides their types."""

    keys: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)  # by column


def infer(
    rows: pl.DataFrame,
    target: str,
    *,
    source: str,
    separator: str,
    time: str | None = None,
    group: str | None = None,
    task: Task | None = None,
    rare_classes: str | None = None,
) -> tuple[Data, dict[str, str]]:
    """Decide on types, gaps, ranges, keys, task and split of what `problem.data.load` returned.

    Args:
        rows: As the project reads them; fields of a text file are text.
        target: The column to predict.
        source: The name of the file, for messages.
        separator: Between the fields of a text file.
        time: The column that says when a row was created; found by default.
        group: The column whose equal values stay on one side of the split; `none` for no such
            column; found by default.
        task: Suggested by the values of the target by default.
        rare_classes: `drop` or `other`; refused by default.

    Returns:
        The contract, which the rows satisfy, and a sentence on each column and on
        `(missing_values)`, `(task)` and `(split)`; those that need a person contain WARNING.

    Raises:
        UsageError: There is nothing to learn from these rows, or an argument does not fit them.
    """
    check_header(rows, source)
    no_group = group == NO_GROUP and NO_GROUP not in rows.columns
    target = find_column(rows, target, source)
    time = find_column(rows, time, source) if time else None
    group = find_column(rows, group, source) if group and not no_group else None
    draft = column_types.draft(rows, target, separator, time)
    columns = draft.data.columns
    ignored = draft.data.ignored
    _require_readable(draft, target, time, group, source)
    frame = typed(rows, draft.data)
    # Without their names: Polars takes one such as * or ^a$ for a pattern, in a series as well.
    values = {name: frame[name].alias("values") for name in frame.columns}
    labels = read_target(rows, values[target], target, source, draft, task, rare_classes)
    values[target] = labels.values
    known = {name: column.filter(labels.is_known) for name, column in values.items()}
    subject = None
    if not group and not no_group:
        subject = find_subject(known, target, time, classified=bool(labels.classes))
    parting: Subject | str | None = group
    if subject and not subject.too_few:
        parting = subject
        group = subject.column
    described = _describe_columns(values, len(rows), draft, target, time, group)
    notes = described.notes
    notes |= {name: f"ignored: {reason}" for name, reason in ignored.items()}
    not_features = {target, group, *described.keys, *ignored}
    features = [name for name in values if name not in not_features]
    if not features:
        raise UsageError(f"{source}: no column is left to learn from: {ignored}")
    if columns[target].type == "category":
        complete = {"categories": sorted(labels.classes), "allow_unknown": False}
        columns[target] = columns[target].model_copy(update=complete)
    notes[target] += _rows_set_aside(rows, frame, labels)
    choice = choose_split(known, target, labels.classes, features, time, parting)
    notes["(split)"] = choice.reason
    if subject and subject.too_few:
        notes["(split)"] += (
            f"; WARNING: rows of the same {subject.column!r} are alike ({subject.reason}), but "
            f"{subject.too_few}, too few to split by: scores are those of known ones, not of new "
            "ones; bring more of them, or leave the column out"
        )
    visible = {
        name: visible_values(known[name], columns[name].type)
        for name in features
        if name != choice.time
    }
    for name in predict_alone(visible, known[target], labels.task):
        notes[name] += (
            f"; WARNING: predicts {target!r} alone: leave it out unless it is known in time"
        )
    counting = [name for name in features if may_count_time(name, known[name].drop_nulls())]
    notes["(split)"] += split_doubts(choice.split, columns, draft, counting)
    notes["(missing_values)"] = _describe_gaps(draft)
    notes["(task)"] = f"{labels.task} {quote_all(labels.classes)}".rstrip()
    notes["(task)"] += "; --task names another"
    notes |= dict.fromkeys(described.keys, "the key: different in every row, and not a feature")
    contract = Data(
        source=source,
        separator=separator,
        decimal=draft.data.decimal,
        missing_values=draft.data.missing_values,
        target=target,
        task=labels.task,
        classes=labels.classes,
        rare_classes=labels.rare_classes,
        split=choice.split,
        keys=described.keys,
        time=choice.time,
        min_rows=max(MIN_ROWS, len(rows) // 2),
        columns={name: columns[name] for name in rows.columns if name not in ignored},
        ignored=ignored,
    )
    return contract, notes


def _require_readable(
    draft: Draft, target: str, time: str | None, group: str | None, source: str
) -> None:
    """Check that the columns that were named can be read, and are not the same.

    Raises:
        UsageError: One cannot.
    """
    for name in filter(None, (target, time, group)):
        reason = draft.data.ignored.get(name)
        if reason is None and name == time and draft.data.columns[name].type != "datetime":
            unread = draft.unread.get(name)
            reason = unread.message if unread else "not a datetime"
        if reason:
            raise UsageError(f"{source}: {name!r} is {reason}")
    if group == target:
        raise UsageError(f"{source}: --group {group}: that is the target; name whose rows they are")


def _describe_columns(
    values: dict[str, pl.Series],
    rows: int,
    draft: Draft,
    target: str,
    time: str | None,
    group: str | None,
) -> _Described:
    """Complete every column of the draft, and leave out those that teach a model nothing."""
    columns = draft.data.columns
    described = _Described()
    for name, column_values in values.items():
        is_named = name in (target, time, group)
        is_unique = column_values.drop_nulls().n_unique() == rows
        is_identifier = is_unique and bool(ID.search(name))
        may_be_text = not is_named and name not in draft.unread and not is_identifier
        holds_text = may_be_text and is_text(column_values)
        useless = None
        if not is_named and not holds_text:
            useless = find_useless(column_values, name)
        reason = _reason_to_leave_out(name, useless, draft)
        is_first_key = not described.keys and is_identifier
        if useless and reason == useless.reason and useless.kind != "other" and is_first_key:
            described.keys = [name]
            reason = None
        elif not is_named and column_values.equals(values[target]):
            reason = "a copy of the target"
        elif holds_text:
            columns[name] = columns[name].model_copy(update={"type": "text"})
        columns[name], note = limit_column(
            column_values, columns[name], name, any_value=name in (group, *described.keys)
        )
        described.notes[name] = "; ".join([note, *draft.notes.get(name, [])])
        if reason:
            draft.data.ignored[name] = reason
    return described


def _reason_to_leave_out(name: str, useless: Useless | None, draft: Draft) -> str | None:
    """Return why a column is left out; what could not be read is noted if it stays."""
    unread = draft.unread.get(name)
    if unread is None:
        return useless.reason if useless else None
    if useless and useless.kind == "unique" and unread.is_right_as_words:
        useless = None  # a version or a ratio is a category, however many there are
    if useless and useless.kind != "row number":
        return unread.message
    draft.note(name, unread.message)
    return useless.reason if useless else None


def _rows_set_aside(rows: pl.DataFrame, frame: pl.DataFrame, labels: Target) -> str:
    """Return warnings about rows without a target, and about rare classes."""
    warnings = ""
    written = frame[labels.name]
    missing = int(written.null_count())
    if missing:
        words = rows[labels.name].cast(pl.String).str.strip_chars().filter(written.is_null())
        examples = [word for word in words.drop_nulls().unique().sort() if word][:3]
        listed = f" ({quote_all(examples)})" if examples else ""
        warnings += f"; WARNING: {missing} rows without one{listed} are set aside"
    rare = labels.rare_classes
    if rare:
        rare_rows = int(written.cast(pl.String).is_in(list(rare)).sum())
        outcome = f"learned as {OTHER!r}" if OTHER in rare.values() else "set aside"
        warnings += f"; WARNING: {len(rare)} rare classes in {rare_rows} rows are {outcome}"
    return warnings


def _describe_gaps(draft: Draft) -> str:
    of_columns = [
        f"{quote_all(column.missing_values)} in {name!r}"
        for name, column in draft.data.columns.items()
        if column.missing_values
    ]
    meaning = "; ".join([f"{quote_all(draft.data.missing_values)} mean no value", *of_columns])
    return f"{meaning}; decimal sign {draft.data.decimal!r}"
