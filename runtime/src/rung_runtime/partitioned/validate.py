"""Validate a source: each partition → `source_validation.json`. Refuses rows that break a rule.

The contract is that of `config/data.yaml`, target and keys included, and the verdict that which
all rows would get as one table.
"""

from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from .. import RefusedError, UsageError, progress
from ..artifacts import digest, now, write
from ..config import DATA, Config, Data
from ..engines.interface import Engine, Files, Job
from ..escaping import visible
from ..pipeline.ingest import typed
from ..pipeline.validate import COLUMN_KINDS, SECONDS_PER_DAY, FailedRule, Rules, describe
from ..records import Failure, PartitionVerdict, RuleKind, SourceValidationDocument
from ..scoring.sources import Partition, no_tables, open_source, text_digest, with_left_out
from . import project_code
from .duplicates import find_duplicates
from .judged import Judged

MAX_NAMED = 10  # partitions that a message names


class Verdict(NamedTuple):
    """What is wrong with a partition."""

    digest: str
    judged: Judged


class PartitionJudge:
    """Judges partitions by the contract, one after the other."""

    def __init__(self, data: Data, more: Rules) -> None:
        self.data = data
        self.more = more

    def __call__(self, partition: Partition) -> Verdict:
        """Judge a partition, batch by batch.

        Raises:
            UsageError: It cannot be read.
        """
        judged = Judged()
        content = partition.digest()
        progress.begin(partition.name)
        is_empty = True
        for raw in partition.batches(self.data.separator):
            is_empty = False
            judged.add_batch(typed(raw, self.data), self.data, self.more)
            progress.report(f"{judged.rows:,} rows")
        if is_empty:  # its columns count all the same
            header = typed(partition.header(self.data.separator), self.data)
            judged.add_batch(header, self.data, self.more)
        if not partition.is_unchanged():
            raise UsageError(f"{partition.name} changed while it was read")
        return Verdict(content, judged)


def start_judging(contract: str, files: Files) -> PartitionJudge:
    """Return what judges partitions."""
    more = project_code.load_rules(files[project_code.PROBLEM])
    return PartitionJudge(Data.model_validate_json(contract), more)


def validate_source(location: str, version: int | None, config: Config, engine: Engine) -> str:
    """Judge a source by the contract, and write `artifacts/source_validation.json`.

    Args:
        location: A file, a folder, a Delta table, or the URL of one of them.
        version: Of a Delta table; None: the newest.
        config: With the contract.
        engine: What goes through the partitions.

    Returns:
        What was checked, in a sentence.

    Raises:
        UsageError: A partition cannot be read.
        RefusedError: Rows break the contract.
    """
    started = now()
    data = config.data
    source = open_source(location, version)
    partitions = source.partitions()
    if not partitions:
        raise UsageError(no_tables(location, source))
    verdicts = _judge(partitions, data, engine)
    total = Judged()
    for verdict in verdicts:
        total.add(verdict.judged)
    failed = _failures(partitions, verdicts, total, data, engine)
    document = _document(location, source.version, partitions, verdicts, total, failed, data)
    lines = [f"{part.name} {part.digest}" for part in document.partitions]
    write(
        document,
        started=started,
        data_digest=text_digest("\n".join(lines)),
        inputs={str(DATA): digest(DATA)},
    )
    bad = [part.name for part in document.partitions if part.verdict == "refused"]
    if failed:
        title = with_left_out("the rows break config/data.yaml", source)
        text = [f"{title}:", *describe(failed)]
        raise RefusedError("\n  ".join([*text, *_named(bad, len(partitions))]))
    message = (
        f"{total.rows:,} rows of {len(partitions):,} partitions satisfy the contract,"
        f" {len(document.columns)} columns checked"
    )
    return with_left_out(message, source)


def _judge(partitions: list[Partition], data: Data, engine: Engine) -> list[Verdict]:
    """Return the verdict on each partition.

    Raises:
        UsageError: One cannot be read; all such are named.
    """
    job = Job(partial(start_judging, data.model_dump_json()), project_code.files())
    verdicts: dict[int, Verdict] = {}
    errors: dict[int, str] = {}
    if not engine.in_process:
        progress.begin("validate")
    rows = 0
    for outcome in engine.run(job, partitions):
        if outcome.result is None:
            errors[outcome.index] = outcome.error
        else:
            verdicts[outcome.index] = outcome.result
            rows += outcome.result.judged.rows
        if not engine.in_process:
            ended = len(verdicts) + len(errors)
            progress.report(f"{ended:,} of {len(partitions):,} partitions, {rows:,} rows")
    if errors:
        raise UsageError("\n  ".join(text for _, text in sorted(errors.items())))
    return [verdicts[index] for index in range(len(partitions))]


def _failures(
    partitions: list[Partition],
    verdicts: list[Verdict],
    total: Judged,
    data: Data,
    engine: Engine,
) -> list[FailedRule]:
    """Return what is wrong with the source, in the order of `pipeline.validate.check`."""
    more = project_code.load_rules(project_code.files()[project_code.PROBLEM])
    failed = total.in_order(data, more)
    of_columns = [failure for failure in failed if failure["kind"] in COLUMN_KINDS]
    of_rows = [failure for failure in failed if failure["kind"] not in COLUMN_KINDS]
    of_table: list[FailedRule] = []
    if total.rows < data.min_rows:
        sample = f"{total.rows} of {data.min_rows}"
        of_table.append(_of_table(None, "too few rows", "row_count", sample))
    if data.max_age_days and total.newest is not None:
        age = datetime.now(UTC).replace(tzinfo=None) - total.newest
        if age.total_seconds() > data.max_age_days * SECONDS_PER_DAY:
            newest = str(total.newest)
            of_table.append(_of_table(data.time, "stale newest row", "freshness", newest))
    names = [name for name in data.columns if name in total.names and name not in total.broken]
    keys = [name for name in data.keys if name in names]
    if keys:
        counts = [verdict.judged.rows for verdict in verdicts]
        if duplicates := find_duplicates(partitions, counts, keys, names, data, engine):
            of_rows.insert(0, duplicates)
    return [*of_columns, *of_table, *of_rows]


def _of_table(column: str | None, rule: str, kind: RuleKind, sample: str) -> FailedRule:
    return {
        "column": column,
        "rule": rule,
        "kind": kind,
        "count": 1,
        "samples": [sample],
        "rows": [],
    }


def _document(
    location: str,
    version: int | None,
    partitions: list[Partition],
    verdicts: list[Verdict],
    total: Judged,
    failed: list[FailedRule],
    data: Data,
) -> SourceValidationDocument:
    broken = {failure["column"] for failure in failed}
    every = dict.fromkeys([*data.columns, *total.names])
    parts = [
        PartitionVerdict(
            name=partition.name,
            rows=verdict.judged.rows,
            digest=verdict.digest,
            verdict="refused" if verdict.judged.failures else "passed",
        )
        for partition, verdict in zip(partitions, verdicts, strict=True)
    ]
    return SourceValidationDocument(
        source=location,
        source_version=version,
        verdict="refused" if failed else "passed",
        rows=total.rows,
        columns={name: "refused" if name in broken else "passed" for name in every},
        failures=[Failure.model_validate(failure) for failure in failed],
        partitions=parts,
    )


def _named(bad: list[str], count: int) -> list[str]:
    """Return which partitions have rows that break a rule, in a line."""
    if not bad:
        return []
    more = f" and {len(bad) - MAX_NAMED:,} more" if len(bad) > MAX_NAMED else ""
    names = visible(", ".join(bad[:MAX_NAMED]))
    return [f"in {len(bad):,} of {count:,} partitions: {names}{more}"]
