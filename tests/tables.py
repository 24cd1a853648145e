"""Tables as people have them: each writes a file and says what a person would ask of it."""

from __future__ import annotations

import csv
import gzip
import io
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

FLIGHTS = Path(__file__).resolve().parent.parent / "template/data/raw/flights.csv"


@dataclass(frozen=True)
class Table:
    """A file, the question, and what `ml data use` must make of it."""

    file: Path
    target: str
    task: str
    options: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()

    @property
    def use(self) -> list[str]:
        """The arguments of `ml`."""
        return ["data", "use", str(self.file), "--target", self.target, *self.options]


def text(header: Iterable[str], rows: Iterable[Iterable[object]], separator: str = ",") -> str:
    """A CSV file's content."""
    made = io.StringIO()
    csv.writer(made, delimiter=separator, lineterminator="\n").writerows([list(header), *rows])
    return made.getvalue()


def flights(to: Path) -> Table:
    """The template's own example: a binary target, a time column, gaps."""
    (to / "flights.csv").write_bytes(FLIGHTS.read_bytes())
    return Table(to / "flights.csv", "delayed", "binary")


def wine(to: Path) -> Table:
    """Three cultivars, German notation, names with units and slashes, gaps by dash."""
    from sklearn.datasets import load_wine  # slow to import

    data = load_wine()
    r = random.Random(1)
    cultivars = ["Barolo", "Grignolino", "Barbera"]
    names = ["Alkohol (% vol.)" if n == "alcohol" else n for n in data.feature_names]
    rows = [
        [
            *("-" if r.random() < 0.02 else f"{x:g}".replace(".", ",") for x in values),
            cultivars[c],
        ]
        for values, c in zip(data.data, data.target, strict=True)
    ]
    r.shuffle(rows)
    (to / "Weine (Piemont).csv").write_text(text([*names, "Rebsorte"], rows, ";"))
    return Table(to / "Weine (Piemont).csv", "Rebsorte", "multiclass")


def diabetes(to: Path) -> Table:
    """A number to predict from ten, one of them a sex as letters; the visits have ids."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    r = random.Random(2)
    rows = [
        [
            f"P{1000 + n}",
            *(f"{x:g}" if r.random() > 0.03 else "n/a" for x in values[2:]),
            "mf"[int(values[1]) - 1],
            f"{values[0]:g}",
            f"{y:g}",
        ]
        for n, (values, y) in enumerate(zip(data.data, data.target, strict=True))
    ]
    header = ["patient_id", *data.feature_names[2:], "sex", "age", "progression"]
    (to / "diabetes.csv").write_text(text(header, rows))
    return Table(to / "diabetes.csv", "progression", "regression")


TASKS: dict[str, Callable[[Path], Table]] = {
    "binary": flights,
    "multiclass": wine,
    "regression": diabetes,
}


def churn(to: Path) -> Table:
    """A CRM export: quoted names, a constant column, yes and no, blanks for no value."""
    r = random.Random(3)
    header = ["customerID", " Tenure (months) ", 'Plan "type"', "Monthly charge", "Total | charge"]
    header += ["Paperless billing", "Country", "<b>Region</b>", "Churn"]
    rows = []
    for n in range(1500):
        tenure = r.randint(0, 72)
        plan = r.choice(["Basic", "Plus", "Família"])
        charge = 20 + 30 * r.random() + 15 * (plan == "Plus")
        leaves = r.random() < (0.6 if tenure < 12 else 0.12) + 0.15 * (plan == "Plus")
        total = " " if tenure == 0 else f"{tenure * charge:.2f}"
        row = [f"{n:04d}-{r.getrandbits(20):05X}", tenure, plan, f"${charge:.2f}", total]
        row += [r.choice(["Yes", "No"]), "PT", r.choice(["Norte", "Açores", "<script>alert(1)"])]
        rows.append([*row, "Yes" if leaves else "No"])
    (to / "churn export (final).csv").write_text(text(header, rows), "utf-8")
    return Table(
        to / "churn export (final).csv", "Churn", "binary", left_out=frozenset({"Country"})
    )


def houses(to: Path) -> Table:
    """Prices by street, of which there are thousands, and by size; tabs, and a BOM."""
    r = random.Random(4)
    streets = [f"{r.choice('ABCDEFG')}{k} Street" for k in range(2500)]
    rows = []
    for _ in range(3000):
        size = r.randint(30, 250)
        rooms = r.randint(1, 7)
        built = r.randint(1880, 2020)
        price = 50_000 + 2500 * size + 400 * (built - 1880) + r.gauss(0, 20_000)
        row = [r.choice(streets), size, rooms, built, f"{round(price, -2):.0f}"]
        rows.append([*row[:4], r.choice(["garden", "balcony", ""]), row[4]])
    header = ["street", "m²", "rooms", "year built", "extra", "price"]
    (to / "houses.tsv").write_bytes(text(header, rows, "\t").encode("utf-8-sig"))
    return Table(to / "houses.tsv", "price", "regression", left_out=frozenset({"street"}))


def sensors(to: Path) -> Table:
    """Readings every ten minutes with gaps and an outage; predict the next hour's temperature."""
    r = random.Random(5)
    when = datetime(2024, 2, 1)
    heat = 20.0
    rows = []
    for n in range(3000):
        when += timedelta(minutes=10 if n != 1500 else 3 * 24 * 60)
        load = 0.5 + 0.4 * (8 <= when.hour < 18) + r.gauss(0, 0.1)
        heat += 0.2 * (15 + 20 * load - heat) + r.gauss(0, 0.3)
        later = heat + 0.5 * (15 + 20 * load - heat) + r.gauss(0, 0.4)
        shown = "" if r.random() < 0.05 else f"{heat:.2f}"
        row = [f"{when:%Y-%m-%dT%H:%M:%SZ}", f"pump-{n % 3}", f"{load:.3f}", shown]
        rows.append([*row, "OK" if r.random() < 0.98 else "ERR", f"{later:.2f}"])
    header = ["timestamp", "device", "load", "temp_c", "status", "temp_next"]
    (to / "sensors.csv.gz").write_bytes(gzip.compress(text(header, rows).encode()))
    return Table(to / "sensors.csv.gz", "temp_next", "regression")


def clinic(to: Path) -> Table:
    """Patients with several visits each: dates as dd/mm/yyyy, codes with leading zeros, gaps."""
    r = random.Random(6)
    rows = []
    for patient in range(500):
        age = r.randint(20, 90)
        smoker = r.random() < 0.3
        for _ in range(r.randint(1, 4)):
            seen = datetime(2022, 1, 1) + timedelta(days=r.randint(0, 700))
            pressure = r.gauss(110 + 0.4 * age, 12)
            risk = (pressure - 130) / 15 + smoker + r.gauss(0, 0.7)
            grade = "severe" if risk > 1.5 else "mild" if risk > 0 else "none"
            row = [f"{patient:06d}", f"{seen:%d/%m/%Y}", age, f"{pressure:.0f}"]
            row += ["?" if r.random() < 0.1 else "yn"[not smoker], f"0{r.randint(10, 40)}", grade]
            rows.append(row)
    header = ["patient", "visit date", "age", "systolic", "smoker", "ward", "outcome"]
    (to / "clinic.csv").write_text(text(header, rows))
    return Table(to / "clinic.csv", "outcome", "multiclass", ("--group", "patient"))


def german(to: Path, orders: int = 1200) -> Table:
    """An export of a German ERP: semicolons, decimal commas, points for thousands, dd.mm.yyyy."""
    r = random.Random(7)
    header = ["Auftrag-Nr.", "Datum", "Größe", "Menge", "Umsatz", "Storno"]
    rows = []
    for n in range(orders):
        day = datetime(2023, 1, 1) + timedelta(days=n // 4)
        size = r.choice(["S", "M", "L", "XL"])
        amount = r.randint(1, 40)
        sales = f"{amount * r.uniform(30, 90):,.2f}".translate(str.maketrans(",.", ".,"))
        back = r.random() < (0.5 if size == "XL" else 0.08)
        row = [f"A-{50000 + n}", f"{day:%d.%m.%Y}", size, amount, sales, "ja" if back else "nein"]
        rows.append(row)
    (to / "Aufträge 2023.csv").write_text(text(header, rows, ";"), "utf-8")
    return Table(to / "Aufträge 2023.csv", "Storno", "binary")


def survey(to: Path) -> Table:
    """Likert answers as words, several writings of no answer, an answer in free text."""
    r = random.Random(8)
    likert = ["strongly disagree", "disagree", "neutral", "agree", "strongly agree"]
    words = [
        "we",
        "have",
        "always",
        "liked",
        "the",
        "food",
        "but",
        "not",
        "so",
        "much",
        "the",
        "noise",
        "of",
        "people",
        "there",
    ]
    rows = []
    for n in range(900):
        mood = [min(4, max(0, round(r.gauss(2.2, 1.2)))) for _ in range(4)]
        comes = sum(mood) + r.gauss(0, 1.5) > 9
        answers = ["N/A" if r.random() < 0.04 else likert[m] for m in mood]
        free = " ".join(r.choices(words, k=r.randint(6, 12)))
        rows.append([n + 1, *answers, r.choice(["yes", "no", ""]), free, "yes" if comes else "no"])
    questions = ["I felt welcome", "The food, I liked", "It's worth it", "Überraschend gut"]
    header = ["respondent", *questions, "first time?", "anything else?", "would come again"]
    (to / "survey.csv").write_text(text(header, rows), "utf-8")
    return Table(to / "survey.csv", "would come again", "binary")


def fraud(to: Path) -> Table:
    """One in a hundred is fraud; Parquet with its own types."""
    r = random.Random(9)
    bad = [r.random() < 0.015 for _ in range(6000)]
    start = datetime(2024, 5, 1)
    rows = pl.DataFrame(
        {
            "at": [start + timedelta(seconds=97 * n) for n in range(6000)],
            "amount": [r.lognormvariate(5.5 if b else 3.5, 0.8) for b in bad],
            "card present": [r.random() < (0.2 if b else 0.8) for b in bad],
            "mcc": [r.choice(["5411", "5812", "7995" if b else "5541"]) for b in bad],
            "is_fraud": bad,
        }
    )
    rows.write_parquet(to / "fraud.parquet")
    return Table(to / "fraud.parquet", "is_fraud", "binary")


def tickets(to: Path) -> Table:
    """Support tickets: ids, a subject as text, dates in several formats, numbers gone wrong."""
    r = random.Random(10)
    teams = ["billing", "network", "hardware"]
    verbs = [
        "please",
        "help",
        "my",
        "new",
        "old",
        "broken",
        "slow",
        "office",
        "printer",
        "router",
        "invoice",
        "does",
        "not",
    ]
    rows = []
    for n in range(1200):
        team = r.choice(teams)
        day = datetime(2024, 1, 1) + timedelta(days=r.randint(0, 300))
        opened = f"{day:%Y-%m-%d}" if r.random() < 0.6 else f"{day:%d.%m.%Y}"
        hours = {"billing": 30, "network": 8, "hardware": 60}[team] * r.uniform(0.6, 1.5)
        mixed = r.choice(["3", "4.5", "5", "unknown"])
        subject = " ".join(r.choices(verbs, k=7))
        rows.append([f"TCK-{n:05d}", subject, opened, f"{hours:.1f}", mixed, team])
    header = ["Ticket ID", "Subject", "opened", "hours", "sätisfaction", "team"]
    (to / "tickets.csv").write_text(text(header, rows), "utf-8")
    return Table(to / "tickets.csv", "team", "multiclass")


def wide(to: Path) -> Table:
    """Two hundred columns, five of which matter."""
    r = random.Random(11)
    rows = []
    for _ in range(600):
        x = [r.gauss(0, 1) for _ in range(199)]
        rows.append([*(f"{v:.4f}" for v in x), f"{3 * sum(x[:5]) + r.gauss(0, 2):.3f}"])
    header = [*(f"feature {k}" for k in range(199)), "yield"]
    (to / "wide.csv").write_text(text(header, rows))
    return Table(to / "wide.csv", "yield", "regression")


PEOPLES = [churn, houses, sensors, clinic, german, survey, fraud, tickets, wide]


def nothing(to: Path) -> Table:
    """A target that has nothing to do with the columns."""
    r = random.Random(12)
    rows = [[f"{r.random():.4f}", r.choice("abc"), r.choice(["up", "down"])] for _ in range(1000)]
    (to / "coin.csv").write_text(text(["draw", "table", "coin"], rows))
    return Table(to / "coin.csv", "coin", "binary")
