"""What data hold is read as data: in a comment, in a model card and in the log of a runner."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rung_runtime import UsageError

Import = Callable[[str], ModuleType]
# Each has the mark zq, which must be found within code spans and nowhere else.
ATTACKS = [
    "@zq",
    "@team/zq everybody",
    "#1 zq",
    "!1 zq",
    "zq/repository#1",
    "GH-1 zq",
    "$1 %1 ~bug &1 zq",
    "![zq](https://192.0.2.1/pixel.png)",
    "[zq](https://192.0.2.1/)",
    "<https://192.0.2.1/zq>",
    "https://192.0.2.1/zq www.zq.example zq@mail.example",
    "<details><summary>zq</summary>",
    "<!-- zq",
    "--> zq <!--",
    "<!-- ml report -->\nzq",
    "<img src=x onerror=alert(1)> zq",
    "&#64;zq &lt;b&gt;",
    "`zq`",
    "`` zq ```",
    "`",
    "zq\\",
    "\\`zq",
    "a|b zq",
    "zq \\| c",
    "|---|---| zq",
    "zq\n| a | b |",
    "zq\n\n/close\n/assign @zq",
    "zq\r\n# A heading",
    "zq\u2028/merge",
    "zq\x85- [x] done",
    "**zq** _zq_ ~~zq~~ :boom: $\\alpha$ [^zq] {+zq+} [[zq]]",
    "```\nzq\n```",
    "zq\x1b[8m hidden \x1b]8;;http://192.0.2.1\x07",
    "zq\u202egnp.exe",
    "zq\u200b\ufeff\U000e0041",
    "zq \ud800",
    "zq" + "x" * 10_000,
    "deadbeefdeadbeefdeadbeefdeadbeefdeadbeef zq",
]


@pytest.fixture
def escaping(module: Import) -> ModuleType:
    return module("escaping")


def parsed(text: str) -> list[Token]:
    """The inline tokens and the blocks of a text, as CommonMark with tables has them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return [inner for token in tokens for inner in [token, *(token.children or [])]]


def test_a_value_in_a_span_is_one_span_and_nothing_else(escaping: ModuleType) -> None:
    for value in ATTACKS:
        (_, _, *inner, _) = parsed(escaping.code(value))
        assert [token.type for token in inner] == ["code_inline"], value
        assert len(inner[0].content) <= escaping.LONGEST
        assert inner[0].content.isprintable()


TEXT = st.text(st.sampled_from("`|\\ab @#<!-\n\r\t*_[]()&;\x1b\u202e\u2028"), max_size=30)


@settings(max_examples=300, deadline=None)
@given(TEXT, TEXT)
def test_any_value_is_itself_in_a_cell_of_its_own(first: str, second: str) -> None:
    escaping = importlib.import_module("rung_runtime.escaping")  # by the fixture `imported`
    shown = [escaping.visible(" ".join(text.split())) or "(empty)" for text in (first, second)]
    cells = " | ".join(map(escaping.cell, (first, second)))
    table = f"| a | b | c |\n|---|---|---|\n| {cells} | last |\n"
    row = [token for token in parsed(table) if token.type == "inline"][3:]
    assert [token.content for token in row][2:] == ["last"]
    for token, value in zip(row, shown, strict=False):
        (only,) = token.children or []
        assert (only.type, only.content) in {("code_inline", value), ("text", "(empty)")}


@pytest.fixture(autouse=True)
def imported(module: Import) -> None:
    module("escaping")


def steps(module: Import, attack: str, kind: str) -> dict[str, Any]:
    """Documents in which each text is an attack: those of a request are made by its own code."""
    records = module("records")
    interval = records.Interval(value=0.5, low=0.5, high=0.5)

    def made(name: str, **fields: Any) -> Any:
        """Return a record whose fields are not validated."""
        return getattr(records, name).model_construct(**fields)

    champion = made("Champion", version=attack)
    if kind == "unreadable":
        comparison = made("Incomparable", kind=kind, reason=attack, champion=champion)
    else:
        part = made("ComparedSlice", column=attack, value=attack, rows=3, skill=interval)
        comparison = made(
            "Compared",
            kind="compared" if kind != "unjudged" else kind,
            champion=champion,
            metric=attack,
            unseen=10,
            confidence=0.9,
            challenger=interval,
            own=interval,
            skill=interval,
            slices=[part],
            best=made("BestComparison", champion=champion, skill=interval),
            fairness=[
                made(
                    "FairnessChange",
                    columns=[attack, attack],
                    rate="error_rate",
                    highest=attack,
                    lowest=attack,
                    challenger=interval,
                    own=interval,
                    change=interval,
                )
            ],
        )
    baseline = made("Baseline", value=0.5)
    part = made("Slice", column=attack, value=attack, rows=3, metric=interval)
    return {
        "gate": made(
            "GateDocument",
            verdict="refused",
            comparison=comparison,
            checks=[
                made(
                    "Check",
                    check=f"worst slice, {attack} = {attack}",
                    rule=attack,
                    verdict=attack,
                    value=0.1,
                    threshold=0.2,
                )
            ],
            notes=[f"note: {attack}"],
            model_digest=attack,
        ),
        "controls": made(
            "ControlsDocument",
            verdict="refused",
            reasons=[attack],
            base=attack,
            own_gate=attack,
            model_digest=attack,
            changes=[made("Change", file=attack, key=attack, before=attack, after=attack)],
        ),
        "validate": refused_rows(module, attack, 3),
        "evaluate": made(
            "MetricsDocument",
            task="multiclass",
            rows=10,
            metric=attack,
            metrics={attack: interval},
            baselines=made("Baselines", constant=baseline, linear=baseline),
            calibration=made("Calibration", error=0.1),
            importance=[made("Importance", column=attack, loss=0.1)],
            slices=[part],
            fairness=[
                made(
                    "GroupComparison",
                    columns=[attack],
                    rate="error_rate",
                    groups=[made("GroupRate", group=attack, rows=3, value=interval)],
                    difference=interval,
                    highest=attack,
                    lowest=attack,
                )
            ],
            model=made("ModelFacts", digest=attack, megabytes=1.0),
            decision=made(
                "Decision",
                false_positive=1.0,
                false_negative=1.0,
                threshold=0.5,
                against=attack,
                worth=interval,
            ),
        ),
        "train": made(
            "TrainingDocument",
            estimator=attack,
            seed=0,
            params={attack: attack},
            commit=attack,
            data_digest=attack,
            config_digest=attack,
            started=attack,
            executor=attack,
        ),
        "split": made("SplitDocument", train=10, holdout=10, by=attack),
    }


def refused_rows(module: Import, attack: str, count: int) -> Any:
    """Return the document of rows that break the contract."""
    records = module("records")
    failure = records.Failure.model_construct(
        column=attack, rule=attack, kind="range", count=1, samples=[attack] * 5, rows=[]
    )
    return records.ValidationDocument.model_construct(failures=[failure] * count)


@pytest.fixture
def written(
    module: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[dict[str, Any], str], str]:
    """Render the report of documents."""
    report = module("pipeline.report")

    def written(documents: dict[str, Any], attack: str) -> str:
        paths = {name: [tmp_path] for name in documents if name != "controls"}
        controls = tmp_path if "controls" in documents else tmp_path / "none"
        monkeypatch.setattr(report, "STEPS", paths)
        others = dict.fromkeys(
            ("evaluate", "explain"), tmp_path / "none"
        )  # explanations are in HTML
        monkeypatch.setattr(report, "DOCUMENTS", {"controls": controls} | others)
        monkeypatch.setattr(report, "read_step", documents.__getitem__)
        monkeypatch.setattr(report, "read", lambda _: documents["controls"])
        monkeypatch.setattr(report, "digest", lambda path: f"of {path}")
        if "gate" in documents:  # the verdict is on these metrics
            inputs = {str(tmp_path): f"of {tmp_path}"}
            documents["gate"] = documents["gate"].model_copy(update={"inputs": inputs})
        names = [attack] * 3
        data = {"target": attack, "task": "multiclass", "classes": names, "source": attack}
        data |= {"features": names, "ignored": names}
        limits = {"columns": ["a"], "max_difference": {"error_rate": 0.1}}
        gate = SimpleNamespace(confidence=0.9, fairness=module("config").Fairness(**limits))
        config = SimpleNamespace(data=SimpleNamespace(**data), gate=gate)
        return str(report.render("report.md", config))

    return written


@pytest.mark.parametrize("kind", ["compared", "unreadable", "unjudged", "refused rows"])
def test_no_name_no_category_and_no_reason_leaves_its_place_in_a_report(
    module: Import, written: Callable[..., str], kind: str
) -> None:
    for attack in ATTACKS:
        documents = steps(module, attack, kind)
        if kind == "unjudged":
            passed = {"verdict": "passed"}
            documents["controls"] = documents["controls"].model_copy(update=passed)
        if kind == "refused rows":
            documents = {"validate": documents["validate"]}
        text = written(documents, attack)
        assert "❌" in text.encode()[:2_000].decode("utf-8", "ignore"), "the verdict comes first"
        assert not [line for line in text.splitlines() if line.startswith("/")]
        tokens = parsed(text)
        for token in tokens:
            kinds = ("code_inline", "inline")
            assert token.type in kinds or "zq" not in token.content, (attack, token)
            assert not re.search("image|link|html|fence|code_block", token.type), (attack, token)
        headings = [token.tag for token in tokens if token.type == "heading_open"]
        assert headings == (["h1", *["h2"] * 3] if len(documents) > 1 else ["h1"])
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            rows = [len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()]
            assert len(set(rows)) == 1, table


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": [-Infinity]}', "[" * 100_000, "[1, 2"])
def test_a_document_of_a_request_that_is_no_json_is_a_sentence(
    module: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    documents = module("artifacts")
    path = tmp_path / "gate.json"
    path.write_text(text)
    monkeypatch.setattr(documents, "DOCUMENTS", {"gate": path})
    # Whatever its schema allows, and with a seal, which its own code can make.
    monkeypatch.setattr(documents, "_validated", lambda *_: SimpleNamespace(digest="any"))
    monkeypatch.setattr(documents, "_seal", lambda _: "any")
    with pytest.raises(UsageError, match="cannot be read"):
        documents.read_step("gate")


def test_a_report_is_short_whatever_breaks_the_contract(
    module: Import, written: Callable[..., str]
) -> None:
    documents = {"validate": refused_rows(module, "a" * 300, 10_000)}
    text = written(documents, "target")
    assert len(text.encode()) < 100_000
    assert "And 9,900 more" in text


def test_what_breaks_the_contract_is_one_line_each(module: Import) -> None:
    for attack in ATTACKS:
        failures = refused_rows(module, attack, 2).model_dump()["failures"]
        lines = module("pipeline.validate").describe(failures)
        assert len("\n".join(lines).splitlines()) == 2
        assert all(line.isprintable() for line in lines)


# --- logs ------------------------------------------------------------------------------------

REGISTERED = {"error", "warning", "notice", "debug", "group", "stop-commands", "add-mask", "echo"}
WHITE = "".join(map(chr, [*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)]))
WHITE += "\u2028\u2029\u202f\u205f\u3000"  # char.IsWhiteSpace of .NET


def commands(log: str) -> list[str]:
    """The lines that GitHub's runner obeys, by its ActionCommand.cs, and GitLab's sections."""
    commands_found = []
    for line in re.split(r"\r\n|\r|\n", log):
        text = line.lstrip(WHITE)
        if text.startswith("::") and "::" in text[2:]:
            commands_found.append(line)
        if re.search(r"##(vso)?\[[^\]]*\]", line):
            commands_found.append(line)
    return commands_found + re.findall(
        r"section_(?:start|end):\d+:[\w.-]+(?:\[[\w=,]*\])?\r\x1b\[0K", log
    )


LOGS = [
    "::error::owned",
    "  \t::stop-commands::token",
    "\u00a0\u3000::add-mask::a",
    "harmless\n::error file=a.py,line=1::owned",
    "harmless\r::warning::owned",
    "harmless\x85::notice::owned",
    "harmless ##[error]owned",
    "harmless ##vso[task.setvariable variable=a]b",
    "###[group]x",
    "section_start:1700000000:a[collapsed=true]\r\x1b[0Kfolded",
    "\x1b[2K\x1b[1A::error::over the last line",
    ":" * 7 + "error::",
    "\ufeff::error::x",
]


class Kept:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)


@pytest.mark.parametrize("attack", LOGS)
def test_no_line_of_a_log_is_a_command_wherever_it_is_cut(module: Import, attack: str) -> None:
    assert commands(
        attack.replace("\x85", "\n").replace("\ufeff", "").replace("\x1b[2K\x1b[1A", "")
    )
    for first in range(len(attack) + 1):
        for second in (first, first + 1, first + 2):
            stream = Kept()
            log = module("runner_log").RunnerLog(stream)
            for part in (attack[:first], attack[first:second], attack[second:], "\n"):
                log.write(part)
            assert commands(stream.text) == []
            assert "\x1b" not in stream.text


@settings(max_examples=500, deadline=None)
@given(st.lists(st.text(st.sampled_from(":#[]\n\r e\t\u00a0\x1bv"), max_size=6), max_size=8))
def test_no_pieces_make_a_command_together(parts: list[str]) -> None:
    stream = Kept()
    log = importlib.import_module("rung_runtime.runner_log").RunnerLog(stream)
    for part in parts:
        log.write(part)
    assert commands(stream.text) == []
    plain = "".join(part.replace("\r\n", "\n") for part in parts)
    if not re.search(r"::|##|[\r\x1b]", plain):
        assert stream.text == plain, "what is not a command stays as it is"


@pytest.mark.parametrize("platform", ["GITHUB_ACTIONS", "GITLAB_CI"])
def test_whatever_ml_prints_on_a_runner_is_no_command(
    module: Import, platform: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import typer

    cli = module("cli.app")
    for name in ("CI", "GITHUB_ACTIONS", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(platform, "true")
    monkeypatch.setattr(sys, "argv", ["ml"])

    def app() -> None:
        print("::error::printed")
        typer.echo("::error::echoed", err=True)
        sys.stderr.writelines(["##[", "error]written"])
        raise LookupError("a bug\n::stop-commands::token")

    monkeypatch.setattr(cli, "app", app)
    before = sys.stdout
    with pytest.raises(SystemExit):
        cli.main()
    assert sys.stdout is before
    done = capsys.readouterr()
    assert commands(done.out) + commands(done.err) == []
    assert "printed" in done.out
    assert "a bug" in done.err


def test_nothing_goes_around_the_filter_where_a_runner_has_no_utf_8(
    module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Click writes past a stream that it takes for misconfigured, if it has a buffer of bytes."""
    import typer

    monkeypatch.setenv("CI", "true")
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, encoding="ascii"))
    with module("runner_log").filtered():
        typer.echo("::error::forged")
        typer.echo("müde")
        sys.stdout.flush()
    text = written.getvalue().decode("ascii")
    assert commands(text) == []
    assert "forged" in text
    assert "m\\xfcde" in text


def test_a_refusal_shows_what_it_cannot_print(
    module: Import, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = module("cli.app")
    monkeypatch.setattr(sys, "argv", ["ml"])

    def app() -> None:
        raise module("cli.app").UsageError(
            "column a\x1b]0;owned\x07\u202e is missing:\n  ml data use"
        )

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    message = "ml: column a\\x1b]0;owned\\x07\\u202e is missing:\n  ml data use\n"
    assert capsys.readouterr().err == message
