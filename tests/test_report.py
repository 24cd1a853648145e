"""The report opens in a browser, alone, without an error, and shows what it should."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from conftest import Copy
from tables import text

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs(*([] if BROWSER else ["chromium"])),
]
Ran = Callable[[int, str], Copy]
TASKS = ["binary", "multiclass", "regression"]
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--v=0", "--dump-dom"),
]


@dataclass
class Page(HTMLParser):
    """What the browser made of a page: its elements, console and requests."""

    dom: str
    console: list[str]
    hosts: set[str]
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read the page."""
        super().__init__()
        self.feed(self.dom)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        """Give the attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


def opened(page: Path, to: Path) -> Page:
    """Open a page in a browser that has never been used."""
    log = to / "net.json"
    logs = [f"--user-data-dir={to / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run(
        [str(BROWSER), *FLAGS, *logs, page.as_uri()], capture_output=True, text=True, check=True
    )
    console = re.findall(r"CONSOLE[:(]\d+\)?\] (.*)", done.stderr)
    # A browser asks hosts of its maker, whatever it is told; those requests have no origin.
    params = (event.get("params", {}) for event in json.loads(log.read_text())["events"])
    urls = [p["url"] for p in params if p.get("initiator", "not an origin") != "not an origin"]
    hosts = {urlsplit(url).netloc for url in urls if url.startswith(("http", "ws"))}
    return Page(done.stdout, console, hosts)


@pytest.fixture(scope="module")
def reports(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Page]:
    """Open the report of a task's run, once."""

    @cache
    def reports(task: str) -> Page:
        report = ran(0, task).path / "artifacts/report.html"
        return opened(report, tmp_path_factory.mktemp(task))

    return reports


def test_the_browser_would_tell_of_an_error_and_of_a_request(tmp_path: Path) -> None:
    """The control: without it, silence below would mean nothing."""
    (tmp_path / "bad.html").write_text(
        "<script>missing.call()</script><img src='http://192.0.2.1/x.png'><p>hi"
    )
    page = opened(tmp_path / "bad.html", tmp_path)
    assert any("missing is not defined" in line for line in page.console)
    assert page.hosts == {"192.0.2.1"}


@pytest.mark.parametrize("task", TASKS)
def test_the_report_opens_alone_and_without_an_error(
    ran: Ran, reports: Callable[[str], Page], task: str
) -> None:
    report = ran(0, task).path / "artifacts/report.html"
    assert report.stat().st_size < 1_000_000
    assert not re.search(r"https?://|//\w+\.\w+/|@import|url\(", report.read_text("utf-8"))
    page = reports(task)
    assert page.console == []
    assert page.hosts == set()
    assert page.all("script") == []


PLOTS = {
    "binary": ["ROC", "Precision", "Calibration", "Confusion"],
    "multiclass": ["Calibration", "Confusion"],
    "regression": ["Calibration", "Predicted and actual", "Residuals"],
}


@pytest.mark.parametrize("task", TASKS)
def test_the_plots_are_there_with_every_point_inside(
    ran: Ran, reports: Callable[[str], Page], task: str
) -> None:
    copy = ran(0, task)
    page = reports(task)
    shown = " ".join(page.words)
    plots = [svg for svg in page.all("svg") if not svg["aria-label"].startswith("Contributions")]
    titles = [svg["aria-label"] for svg in plots]
    titles += ["Confusion"] * ("true \\ predicted" in shown)
    assert [t for t in PLOTS[task] if not any(title.startswith(t) for title in titles)] == []
    assert len(titles) == len(PLOTS[task])
    box = {svg["viewbox"] for svg in plots}
    assert box == {"0 0 320 290"}
    lines = [line["points"].split() for line in page.all("polyline")]
    circles = [dot for dot in page.all("circle") if "style" not in dot and dot["class"] == "dot"]
    dots = [(float(dot["cx"]), float(dot["cy"])) for dot in circles]
    points = [tuple(map(float, p.split(","))) for line in lines for p in line] + dots
    assert len(points) >= len(copy.read("evaluate")["calibration"]["bins"])
    # The frame that the axes make, not only the picture.
    assert all(48 <= x <= 304 and 14 <= y <= 246 for x, y in points)
    for curve in (c for c in copy.read("evaluate")["curves"].values() if task == "regression"):
        assert len(dots) > len(curve)


def written(number: float) -> str:
    """Write a number with four digits, and all of those before the point."""
    return f"{number:,.0f}" if abs(number) >= 1_000 else f"{number:.4g}"


@pytest.mark.parametrize("task", TASKS)
def test_the_report_says_what_the_documents_say(
    ran: Ran, reports: Callable[[str], Page], task: str
) -> None:
    copy = ran(0, task)
    page = reports(task)
    shown = " ".join(" ".join(page.words).split())
    metrics = copy.read("evaluate")
    gate = copy.read("gate")
    assert f"passed, all {len(gate['checks'])} checks" in shown
    for name, interval in metrics["metrics"].items():
        value, low, high = (written(interval[end]) for end in ("value", "low", "high"))
        assert f"{name} {value} {low} to {high}" in shown
    for check in gate["checks"]:
        assert check["check"] in shown
    for piece in metrics["slices"][:40]:
        assert ("(missing)" if piece["value"] is None else str(piece["value"])) in shown
    for column in metrics["importance"][:25]:
        assert column["column"] in shown
    assert metrics["model"]["digest"] in shown


def test_a_lender_sees_which_group_is_treated_otherwise(
    fresh: Callable[..., Copy], tmp_path: Path
) -> None:
    """Nobody's sex is a feature; income, which differs by it, stands for it."""
    copy = fresh()
    draw = random.Random(3)
    rows = []
    for _ in range(3_000):
        sex = draw.choice(["female", "male"])
        income = draw.gauss(1.2 if sex == "male" else 0, 1)
        granted = "yes" if income + draw.gauss(0, 1) > 1 else "no"
        rows.append([sex, income, draw.gauss(0, 1), granted])
    file = tmp_path / "loans.csv"
    file.write_text(text(["sex", "income", "noise", "granted"], rows), "utf-8", newline="")
    copy.ml("data", "use", str(file), "--target", "granted", "--replace", exits=0)
    data = yaml.safe_load((copy.path / "config/data.yaml").read_text("utf-8"))
    (copy.path / "config/data.yaml").write_text(yaml.safe_dump(data | {"sensitive": ["sex"]}))
    gate = yaml.safe_load((copy.path / "config/gate.yaml").read_text("utf-8"))
    limits = {"demographic_parity": 0.1, "calibration": 0.3}
    fairness = {"columns": ["sex"], "max_difference": limits, "min_ratio": {"error_rate": 0.01}}
    (copy.path / "config/gate.yaml").write_text(yaml.safe_dump(gate | {"fairness": fairness}))
    refused = copy.ml("run", exits=1).stderr
    assert "difference in selection rate by sex (male over female), lower end: 0." in refused
    assert "in calibration" not in refused
    assert "sex" not in copy.read("train")["model_inputs"]
    page = opened(copy.path / "artifacts/report.html", tmp_path)
    assert page.console == []
    shown = " ".join(" ".join(page.words).split())
    assert "Selection rate by sex: refused male has the highest" in shown
    assert "this limit is surely broken" in shown
    assert "Calibration (predicted minus observed) by sex: passed" in shown
    bands = [part for part in page.all("em") if "left" in part.get("style", "")]
    assert len(bands) == 4  # of two rates with a largest difference, for each of two groups
    summary = (copy.path / "artifacts/report.md").read_text("utf-8")
    assert "| `selection rate by sex` | difference |" in summary
    # The project's own controls take its limits.
    controls = ["-m", "pytest", "-q", "tests/test_controls.py", "-k", "unfair or alike"]
    done = copy.project.run("python", *controls, cwd=copy.path)
    assert "2 passed" in done.stdout, done.stdout


HOSTILE = [
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="console.error(1)">',
    "a|b\n{{ 7 * 7 }} `c`",
]


def test_names_of_the_data_stay_names(fresh: Callable[..., Copy], tmp_path: Path) -> None:
    copy = fresh()
    r = random.Random(0)
    rows = []
    for n in range(1500):
        kind = HOSTILE[n % 3]
        x = r.gauss(0, 1)
        rows.append([kind, x, r.choice(HOSTILE[:2]) if abs(x) < 0.2 else HOSTILE[2 * (x > 0)]])
    header = [HOSTILE[1], HOSTILE[2], HOSTILE[0]]
    (tmp_path / "<b>.csv").write_text(text(header, rows), "utf-8", newline="")
    arguments = ["data", "use", str(tmp_path / "<b>.csv"), "--target", HOSTILE[0], "--replace"]
    copy.ml(*arguments, exits=0)
    copy.ml("run", exits=0)
    page = opened(copy.path / "artifacts/report.html", tmp_path)
    assert page.console == []
    assert {"script", "img"}.isdisjoint(tag for tag, _ in page.elements)
    assert not [a for _, a in page.elements for name in a if name.startswith("on")]
    shown = " ".join(" ".join(page.words).split())
    assert not [name for name in HOSTILE if " ".join(name.split()) not in shown]
    assert "49" not in re.findall(r"a\|b (\S+)", shown)
    # In Markdown a name may not end its cell, its row or its list.
    summary = (copy.path / "artifacts/report.md").read_text("utf-8")
    card = (copy.path / "artifacts/model/MODEL_CARD.md").read_text("utf-8")
    for document in (summary, card):
        tables = re.findall(r"(?:^\|.*\n)+", document, re.MULTILINE)
        assert tables
        for table in tables:
            cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(cells) == 1, table
    assert (
        json.loads((copy.path / "artifacts/model/contract.json").read_text())["target"]
        == (HOSTILE[0])
    )
