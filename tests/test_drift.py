"""Drift is found where a column changed, whatever the change, and not where nothing did."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from scipy.stats import ks_2samp, rankdata, spearmanr
from verdicts_monitoring import category_shift

Findings = dict[str, dict[str, Any]]
TRAINED = 4_800
WINDOW = 500
SEED = 20_131


class Bench:
    """The example's training rows, their profile, and a judge."""

    def __init__(self, module: Callable[[str], ModuleType]) -> None:
        config, ingest, self.package, self.drift, settings = map(
            module,
            (
                "config",
                "pipeline.ingest",
                "pipeline.training_profile",
                "monitoring.drift",
                "config.drift",
            ),
        )
        project = ROOT / "template"
        data = config.read(project / config.DATA, config.Data)
        rows = ingest.typed(ingest.read(project / data.source, data.separator), data)
        self.rows = rows.sort(data.time).head(TRAINED).select(data.features)
        self.settings = settings.Drift()
        self.references = self.profile(self.rows)

    def profile(self, rows: pl.DataFrame) -> dict[str, Any]:
        """What a package would know of rows."""
        return {
            column.name: self.drift.Reference(self.package.summary(column), len(column))
            for column in rows.get_columns()
        }

    def judge(self, rows: pl.DataFrame, references: dict[str, Any] | None = None) -> Findings:
        findings: Findings = self.drift.judge(rows, references or self.references, self.settings)
        return findings

    def drifted(self, rows: pl.DataFrame) -> dict[str, str]:
        return {name: f["reason"] for name, f in self.judge(rows).items() if f["reason"]}

    def window(self, seed: int, rows: int = WINDOW) -> pl.DataFrame:
        drawn: pl.DataFrame = self.rows.sample(rows, with_replacement=True, seed=seed)
        return drawn


@pytest.fixture(scope="module")
def bench(module: Callable[[str], ModuleType]) -> Bench:
    return Bench(module)


@pytest.mark.slow
@pytest.mark.parametrize("resamples", [100, pytest.param(200, marks=pytest.mark.nightly)])
def test_rows_like_those_of_training_raise_hardly_an_alarm(
    bench: Bench, record_property: Callable[[str, object], None], resamples: int
) -> None:
    # Half of the rows are the reference, windows are drawn from the other half: no row is in both.
    random = np.random.default_rng(SEED)
    windows = 0
    alarms = 0
    chance = 0
    any_size = bench.settings.model_copy(
        update=dict.fromkeys(
            ("min_psi", "min_distance", "min_gap_change", "min_cohens_w", "min_moved"), 1e-9
        )
    )
    for _ in range(resamples):
        order = random.permutation(TRAINED)
        references = bench.profile(bench.rows[order[: TRAINED // 2]])
        rest = order[TRAINED // 2 :]
        signs = []
        for _ in range(5):
            findings = bench.judge(bench.rows[random.choice(rest, WINDOW, False)], references)
            signs.append({name for name, f in findings.items() if f["verdict"] == "drift"})
        findings = bench.drift.judge(bench.rows[rest[:WINDOW]], references, any_size)
        chance += any(f["verdict"] == "drift" for f in findings.values())
        windows += sum(map(bool, signs))
        alarms += any(sum(name in s for s in signs) >= 2 for name in signs[-1])
    share = windows / (5 * resamples)
    print(
        f"seed {SEED}, {resamples} resamples of 5 windows of {WINDOW} rows, "
        f"{len(findings)} columns:"
    )
    print(f"windows with a sign {share:.2%}, false alarms {alarms / resamples:.2%}")
    print(f"windows with a sign if a change of any size were one: {chance / resamples:.2%}")
    record_property("false_alarms", alarms / resamples)
    assert share <= 0.01  # the significance of a window
    assert chance / resamples <= 0.02  # by the tests alone: the same, and what so few leave open
    assert alarms / resamples <= 0.02


def other(name: str, value: str, share: float) -> pl.Expr:
    """Give a share of the rows another category."""
    some = pl.int_range(pl.len()) < pl.len() * share
    return pl.when(some).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)


def gone(name: str, share: float) -> pl.Expr:
    """Take the values of a share of the rows."""
    return pl.when(pl.int_range(pl.len()) >= pl.len() * share).then(name).alias(name)


CHANGES = {
    "a shift": ("temperature_f", pl.col("temperature_f") + 10, "distance"),
    "a scale": ("wind_speed", pl.col("wind_speed") * 1.6, "distance"),
    "a unit": ("distance", (pl.col("distance") * 1.609).cast(pl.Int64), "distance"),
    "a spread that keeps the middle": (
        "pressure",
        1018 + (pl.col("pressure") - 1018) * 2,
        "distance",
    ),
    "many more of a value that most rows have": (
        "precipitation",
        pl.when(pl.int_range(pl.len()) % 4 == 0).then(0.2).otherwise("precipitation"),
        "distance",
    ),
    "a value for all": ("visibility", pl.lit(10.0), "PSI"),
    "another mix": ("carrier", other("carrier", "UA", 0.4), "Cohen's w"),
    "another mix of three": ("origin", other("origin", "LGA", 0.4), "Cohen's w"),
    "a category gone": (
        "origin",
        pl.when(pl.col("origin") != "JFK").then("origin").otherwise(pl.lit("EWR")),
        "PSI",
    ),
    "a new category": ("dest", other("dest", "ZZZ", 0.1), "values that training did not have"),
    "gaps": ("seats", gone("seats", 0.15), "gaps went from"),
    "gaps where there were none": ("origin", gone("origin", 0.08), "gaps went from"),
    "gaps filled": ("plane_age", pl.col("plane_age").fill_null(10.0), "gaps went from"),
    "gaps in a time": (
        "scheduled_departure",
        gone("scheduled_departure", 0.2),
        "gaps went from",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found_in_its_column_and_in_no_other(bench: Bench, change: str) -> None:
    column, how, expected = CHANGES[change]
    rows = bench.window(SEED)
    assert bench.drifted(rows) == {}
    reasons = bench.drifted(rows.with_columns(how.alias(column)))
    assert list(reasons) == [column]
    assert expected in reasons[column]


SMALL = {
    "a shift": ("temperature_f", pl.col("temperature_f") + 1),
    "a scale": ("wind_speed", pl.col("wind_speed") * 1.05),
    "another mix": ("carrier", other("carrier", "UA", 0.05)),
    "a new category": ("dest", other("dest", "ZZZ", 0.03)),
    "gaps": ("seats", gone("seats", 0.03)),
    "a single gap where there was none": ("origin", gone("origin", 0.002)),
}


@pytest.mark.parametrize("change", SMALL)
@pytest.mark.parametrize("rows", [WINDOW, 200_000])  # in the larger, chance explains nothing
def test_a_small_change_is_none(bench: Bench, change: str, rows: int) -> None:
    column, how = SMALL[change]
    assert bench.drifted(bench.window(SEED, rows).with_columns(how.alias(column))) == {}


def test_names_that_hardly_come_twice_raise_no_alarm(bench: Bench) -> None:
    random = np.random.default_rng(SEED)
    signs = 0
    for _ in range(50):
        names = [f"n{k}" for k in random.zipf(1.3, TRAINED + WINDOW)]
        rows = pl.DataFrame({"name": names})
        finding = bench.judge(rows[TRAINED:], bench.profile(rows[:TRAINED]))["name"]
        signs += finding["verdict"] == "drift"
    print(f"seed {SEED}: {signs} signs in 50, with {finding['new']:.0%} names that are new")
    assert finding["new"] > 0.05
    assert signs <= 1  # a window in a hundred may, and two of five make an alarm


def contract(module: Callable[[str], ModuleType], listed: list[str]) -> Any:
    """Return a contract of one open category, `shop`."""
    return module("config").Data.model_validate(
        {
            "source": "shops.csv",
            "target": "y",
            "task": "binary",
            "classes": ["no", "yes"],
            "split": {"by": "stratified"},
            "columns": {
                "shop": {"type": "category", "categories": listed, "allow_unknown": True},
                "y": {"type": "category", "categories": ["no", "yes"]},
            },
        }
    )


@pytest.mark.parametrize("rows", [1_500, 12_000])
@pytest.mark.parametrize("shape", ["equal", "zipf"])
def test_a_list_of_the_most_frequent_values_is_not_expected_to_cover_other_rows_as_well(
    module: Callable[[str], ModuleType], bench: Bench, rows: int, shape: str
) -> None:
    random = np.random.default_rng(SEED + rows)
    print(f"seed {SEED + rows}")
    shares = np.ones(300) if shape == "equal" else 1 / np.arange(1.0, 2_001)
    shares = random.permutation(shares / shares.sum())
    names = np.array([f"shop {k:04}" for k in range(len(shares))])
    expected = []
    true = []
    signs = 0
    for _ in range(5):
        known = pl.DataFrame({"shop": random.choice(names, rows, p=shares), "y": ["no"] * rows})
        counts = known["shop"].value_counts().sort(-pl.col("count").cast(pl.Int64), "shop")
        data = contract(module, sorted(counts["shop"].head(200)))
        predictions = pl.DataFrame(
            {"given": [[0.5, 0.5]]}, schema={"given": pl.Array(pl.Float64, 2)}
        )
        fifth = rows // 5
        profile = bench.package.profile(known[fifth:], predictions, data, known[:fifth])
        references = {"shop": bench.drift.Reference(profile["columns"]["shop"], profile["rows"])}
        expected.append(profile["columns"]["shop"]["unlisted"])
        true.append(shares[~np.isin(names, data.columns["shop"].categories)].sum())
        for _ in range(8):
            window = pl.DataFrame({"shop": random.choice(names, WINDOW, p=shares)})
            signs += bench.judge(window, references)["shop"]["verdict"] == "drift"
    print(f"unlisted: expected {np.mean(expected):.3f}, true {np.mean(true):.3f}; {signs} signs")
    assert abs(np.mean(expected) - np.mean(true)) < 0.03
    assert signs <= 2  # of 40


def test_a_list_that_people_chose_covers_what_it_covers(bench: Bench) -> None:
    shops = pl.Series([f"shop {k:03}" for k in range(300)] * 20)
    listed = [f"shop {k:03}" for k in range(0, 300, 3)]
    assert bench.package.unlisted_share(shops, listed)[0] == pytest.approx(2 / 3)
    assert bench.package.unlisted_share(shops, sorted(set(shops)))[0] == 0
    once = pl.Series([*shops, "a", "b", None])
    assert bench.package.unlisted_share(once, sorted({*shops, "a", "b"}))[0] == 2 / len(once)


SHARES = {"two": [0.5, 0.5], "three": [0.5, 0.3, 0.2], "ten": [0.1] * 10, "rare": [0.9, 0.1]}


@pytest.mark.slow
@pytest.mark.parametrize("shares", SHARES)
def test_a_moderate_shift_of_a_category_is_found_and_chance_is_not(
    bench: Bench, shares: str
) -> None:
    print(f"seed {SEED}")
    moved, unmoved = (
        category_shift(bench.drift, bench.package, bench.settings, size, SHARES[shares], 20, SEED)
        for size in (0.3, 0.0)
    )
    assert moved >= 0.8
    assert unmoved == 0


def test_a_large_change_of_few_rows_may_be_chance(bench: Bench) -> None:
    few = bench.window(SEED, 12)
    findings = bench.judge(few)
    assert max(f["psi"] for f in findings.values()) > bench.settings.min_psi
    assert bench.drifted(few) == {}


def test_time_goes_on_without_an_alarm(bench: Bench) -> None:
    later = bench.window(SEED).with_columns(pl.col("scheduled_departure").dt.offset_by("1y"))
    finding = bench.judge(later)["scheduled_departure"]
    assert (finding["verdict"], finding["distance"]) == ("quiet", 1.0)


@pytest.mark.parametrize("n", [3, 60, 101, 150, 4_800])
@pytest.mark.parametrize("m", [5, 500, 3_000])
def test_the_distance_is_a_lower_bound_of_the_one_between_the_values(
    bench: Bench, module: Callable[[str], ModuleType], n: int, m: int
) -> None:
    differences = module("pipeline.differences")
    random = np.random.default_rng(SEED + n * m)
    print(f"seed {SEED + n * m}")
    makers: list[Callable[[int], Any]] = [
        lambda k: random.normal(size=k),
        lambda k: random.integers(0, 3, k),
        lambda k: random.integers(0, 40, k),
        lambda k: random.binomial(1, 0.5, k),
        lambda k: np.where(random.random(k) < 0.95, 0.0, random.exponential(size=k)),
        lambda k: np.full(k, 7.0),
    ]
    for make in makers:
        for shift in (0.0, 1.0):
            before = np.asarray(make(n), float)
            now = np.sort(np.asarray(make(m) + shift, float))
            seen = bench.package.summary(pl.Series(before))
            change = differences.compare(pl.Series(now), seen, n).sizes
            exact = ks_2samp(before, now, method="asymp")
            assert exact.statistic - 1.5 / min(n, 100) <= change.distance <= exact.statistic + 1e-9
            assert change.psi >= 0
            assert 0 <= change.p <= 1


class Year:
    """A year of a place: seasons, weather that lasts some days, shops, and a profile of it."""

    def __init__(self, module: Callable[[str], ModuleType], rows: int = 24_000) -> None:
        random = np.random.default_rng(SEED)
        print(f"seed {SEED}")
        self.drift = module("monitoring.drift")
        self.settings = module("config.drift").Drift()
        day = np.sort(random.random(rows)) * 365
        days = np.arange(400)
        weather = np.convolve(random.normal(size=404), np.full(5, 0.2), "valid") * 8
        mean = 50 - 20 * np.cos(2 * np.pi * days / 365) + weather
        wind = np.exp(np.convolve(random.normal(size=402), np.full(3, 1 / 3), "valid"))
        whole = day.astype(int)
        self.rows = pl.DataFrame(
            {
                "at": (day * 8.64e10).astype(np.int64) + 1_672_531_200_000_000,
                "temperature": mean[whole] + random.normal(0, 3, rows),
                "wind": 10 * wind[whole] + random.normal(0, 1, rows),
                "shop": random.choice(["north", "south", "west"], rows, p=[0.5, 0.3, 0.2]),
                "y": random.choice(["no", "yes"], rows),
            }
        ).with_columns(pl.col("at").cast(pl.Datetime("us")))
        shops = {"type": "category", "categories": ["north", "south", "west"]}
        self.data = module("config").Data.model_validate(
            {
                "source": "year.csv",
                "target": "y",
                "task": "binary",
                "classes": ["no", "yes"],
                "split": {"by": "stratified"},
                "time": "at",
                "columns": {
                    "at": {"type": "datetime"},
                    "temperature": {"type": "number"},
                    "wind": {"type": "number"},
                    "shop": shops,
                    "y": {"type": "category", "categories": ["no", "yes"]},
                },
            }
        )
        half = pl.Series(random.random(rows) < 0.5)
        predictions = pl.DataFrame(
            {"given": [[0.5, 0.5]]}, schema={"given": pl.Array(pl.Float64, 2)}
        )
        profile = module("pipeline.training_profile").profile(
            self.rows.filter(half), predictions, self.data
        )
        self.references = {
            name: self.drift.Reference(seen, profile["rows"])
            for name, seen in profile["columns"].items()
        }
        self.live = self.rows.filter(~half)

    def signs(self, days: int, *changes: pl.Expr) -> list[set[str]]:
        """Return the columns that drift in each window of so many days, laid side by side."""
        begin = self.live["at"][0]
        drifted = []
        while begin + timedelta(days=days) <= self.live["at"][-1]:
            end = begin + timedelta(days=days)
            window = self.live.filter(pl.col("at").is_between(begin, end, closed="left"))
            judged = self.drift.judge(window.with_columns(*changes), self.references, self.settings)
            drifted.append({name for name, f in judged.items() if f["verdict"] == "drift"})
            begin = end
        return drifted


@pytest.fixture(scope="module")
def seasons(module: Callable[[str], ModuleType]) -> Year:
    return Year(module)


@pytest.mark.slow
@pytest.mark.parametrize("days", [3, 14])
def test_a_year_against_itself_has_hardly_a_sign(seasons: Year, days: int) -> None:
    signs = seasons.signs(days)
    assert sum(map(bool, signs)) <= 0.05 * len(signs)


def test_a_day_of_a_year_is_compared_with_days(seasons: Year) -> None:
    plain = {
        name: known._replace(seen=dict(known.seen, usual=[]))
        for name, known in seasons.references.items()
    }
    window = seasons.live.filter(pl.col("at").dt.ordinal_day() < 8)
    for references, expected in ((plain, True), (seasons.references, False)):
        findings = seasons.drift.judge(window, references, seasons.settings)
        assert (findings["temperature"]["verdict"] == "drift") is expected
    assert findings["temperature"]["usual"]["distance"] > 0.5


@pytest.mark.slow
def test_what_no_season_explains_is_found(seasons: Year) -> None:
    moved = pl.col("shop").replace("west", "south")
    assert all("shop" in names for names in seasons.signs(14, moved))
    hotter = seasons.signs(30, pl.col("temperature") + 20)
    assert sum("temperature" in names for names in hotter) > 0.5 * len(hotter)
    assert "from the same time of the year" in str(
        [
            finding["reason"]
            for finding in seasons.drift.judge(
                seasons.live.filter(pl.col("at").dt.month() == 10).with_columns(
                    pl.col("temperature") + 20
                ),
                seasons.references,
                seasons.settings,
            ).values()
        ]
    )


def test_rows_of_all_seasons_are_not_excused_by_them(seasons: Year) -> None:
    window = seasons.live.sample(WINDOW, seed=SEED)
    findings = seasons.drift.judge(window, seasons.references, seasons.settings)
    assert {f["verdict"] for f in findings.values()} == {"quiet"}
    hotter = window.with_columns(pl.col("temperature") + 15)
    findings = seasons.drift.judge(hotter, seasons.references, seasons.settings)
    assert [name for name, f in findings.items() if f["verdict"] == "drift"] == ["temperature"]


@pytest.mark.parametrize("decimals", [1, 3])
def test_single_precision_is_no_drift(bench: Bench, decimals: int) -> None:
    random = np.random.default_rng(SEED)
    values = pl.DataFrame({"x": random.normal(20, 5, TRAINED).round(decimals)})
    references = bench.profile(values)
    window = values.sample(WINDOW, seed=SEED)
    single = window.with_columns(pl.col("x").cast(pl.Float32).cast(pl.Float64))
    before, now = (bench.judge(rows, references)["x"] for rows in (window, single))
    assert (now["psi"], now["distance"]) == (before["psi"], before["distance"])
    fine = pl.DataFrame({"x": 1e9 + random.normal(size=TRAINED)})  # finer than that precision
    moved = fine.tail(WINDOW).with_columns(pl.col("x") + 1)
    assert bench.judge(moved, bench.profile(fine))["x"]["verdict"] == "drift"


@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_a_change_of_a_correlation_is_a_sign_and_chance_is_not(
    module: Callable[[str], ModuleType], bench: Bench, gaps: float
) -> None:
    random = np.random.default_rng(SEED)
    print(f"seed {SEED}")

    def draw(rows: int, correlation: float) -> pl.DataFrame:
        values = random.normal(size=(rows, 12))
        values[:, 1] = correlation * values[:, 0] + (1 - correlation**2) ** 0.5 * values[:, 1]
        values = np.where(random.random(values.shape) < gaps, np.nan, np.exp(values))
        return pl.DataFrame(values, schema=[f"x{k}" for k in range(12)]).fill_nan(None)

    trained = draw(TRAINED, 0.0)
    references = bench.profile(trained)
    seen = {name: reference.seen for name, reference in references.items()}
    module("pipeline.correlations").add_correlations(seen, trained)
    still = sum(
        any(finding["reason"] for finding in bench.judge(draw(WINDOW, 0.0), references).values())
        for _ in range(40)
    )
    assert still <= 1
    for correlation in (0.9, 0.4):
        findings = bench.judge(draw(WINDOW, correlation), references)
        assert [name for name, f in findings.items() if f["verdict"] == "drift"] == ["x0"]
        assert "correlation with x1 went from" in findings["x0"]["reason"]


@pytest.mark.parametrize("decimals", [0, 6])
def test_correlations_of_a_window_are_those_of_scipy(
    module: Callable[[str], ModuleType], decimals: int
) -> None:
    random = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    values = (random.normal(size=(6_000, 3)) @ random.normal(size=(3, 3))).round(decimals)
    values[random.random(values.shape) < 0.2] = np.nan
    columns = ["a", "b", "c"]
    rows = pl.DataFrame(values, schema=columns).fill_nan(None)
    ranked = module("pipeline.correlations").RankableColumns(rows)
    for begin, end in ((0, 6_000), (100, 400), (2_000, 5_500)):
        matrix, count = ranked.correlations(begin, end)
        window = values[begin:end]
        # Ranks among all values of a column, those beside a gap of the other column as well.
        ranks = rankdata(window, nan_policy="omit", axis=0)
        centred = ranks - np.nanmean(ranks, axis=0)
        for first, second in ((0, 1), (0, 2), (1, 2)):
            both = ~np.isnan(window[:, [first, second]]).any(axis=1)
            x = centred[both, first]
            y = centred[both, second]
            assert count[first, second] == both.sum()
            assert matrix[first, second] == pytest.approx(x @ y / np.sqrt(x @ x * (y @ y)))
            near = spearmanr(window[both, first], window[both, second]).statistic
            assert matrix[first, second] == pytest.approx(near, abs=0.02)


def test_rows_in_another_order_have_the_correlations_of_these_rows(
    module: Callable[[str], ModuleType],
) -> None:
    random = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    values = random.normal(size=(900, 3)).round(1)
    values[:300][random.random((300, 3)) < 0.5] = np.nan
    rows = pl.DataFrame(values, schema=["a", "b", "c"]).fill_nan(None)
    rankable = module("pipeline.correlations").RankableColumns
    index = random.permutation(900)[:700]  # without those that have no time
    for begin, end in ((0, 700), (100, 400)):
        reordered = rankable(rows).reordered(index).correlations(begin, end)
        assert np.array_equal(reordered, rankable(rows[index]).correlations(begin, end))


@pytest.mark.parametrize("days", [7, 30])
def test_what_is_usual_of_windows_is_the_largest_change_of_any(
    module: Callable[[str], ModuleType], seasons: Year, days: int
) -> None:
    differences = module("pipeline.differences")
    same_season = module("pipeline.same_season")
    rows = seasons.live.with_columns(
        temperature=pl.when(pl.col("wind") > 12).then(None).otherwise("temperature")
    )
    seen = seasons.references["temperature"].seen
    values = differences.Values.from_series(rows["temperature"], categories=False)
    parts = same_season.parts_of(rows["at"])
    per_window = len(rows) * days // 365
    windows = [(k, k + per_window) for k in range(0, len(rows) - per_window, per_window // 3)]

    whole = differences.Reference(seen, 12_000, of_times=False)
    codes = whole.codes(values)
    usual = in_season = differences.Usual()
    for begin, end in windows:
        usual = usual.at_least(whole.change(codes[begin:end]))
        for shift in (-1, 1):
            local, count = same_season.same_season(seen, (parts[begin:end] + shift) % 24)
            change = differences.compare(rows["temperature"][begin:end], local, count)
            in_season = in_season.at_least(change)
    assert whole.largest_change(codes, windows) == pytest.approx(usual)
    together = same_season.usual_of_season(values, parts, windows, seen)
    assert together == pytest.approx(in_season)
    assert in_season.gap_change > 0.05 < usual.distance


def test_nothing_is_said_of_nothing(bench: Bench) -> None:
    empty = bench.judge(bench.rows.head(0))
    assert {f["verdict"] for f in empty.values()} == {"quiet"}
    assert bench.judge(bench.rows.drop("carrier")).keys() == bench.references.keys() - {"carrier"}
    hollow = bench.profile(pl.DataFrame({"x": pl.Series([None] * 500, dtype=pl.Float64)}))
    full = pl.DataFrame({"x": np.arange(500.0)})
    assert "gaps went from 100.0% to 0.0%" in bench.judge(full, hollow)["x"]["reason"]


@pytest.mark.slow
def test_a_million_rows_of_twelve_columns_are_judged(
    bench: Bench, record_property: Callable[[str, object], None]
) -> None:
    rows = bench.window(SEED, 1_000_000).drop("flight")
    assert rows.shape == (1_000_000, 12)
    began = time.perf_counter()
    findings = bench.judge(rows)
    record_property("seconds", round(time.perf_counter() - began, 2))
    assert len(findings) == 12
