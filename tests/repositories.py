"""Repositories as people write them, before they know of Rung: each built into a folder.

Their data is small and made by a seeded generator, and predicts the target well enough for a gate
to accept the model.
"""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import git


@dataclass(frozen=True)
class Before:
    """A repository, and what adopting it must find out."""

    build: Callable[[Path], None]
    package: str
    file: str
    target: str
    task: str
    git: bool = True
    ci: str = "github"
    carried: frozenset[str] = field(default_factory=frozenset)


def table(header: Sequence[str], rows: Iterable[Sequence[object]], end: str = "\n") -> str:
    """Give a CSV file's content."""
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows([header, *rows])
    return text.getvalue()


def notebook(*cells: str, version: int = 5) -> str:
    """Give a notebook; a cell that starts with # and a space is text."""
    made: list[dict[str, Any]] = []
    for number, source in enumerate(cells, 1):
        lines = source.strip("\n").splitlines(keepends=True)
        if source.startswith("# "):
            made.append({"cell_type": "markdown", "metadata": {}, "source": lines})
        else:
            stream = {"name": "stdout", "output_type": "stream", "text": ["ok   \n"]}
            cell = {"cell_type": "code", "execution_count": number, "metadata": {}}
            made.append({**cell, "outputs": [stream], "source": lines})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python", "version": "3.8.10"}}
    whole = {"cells": made, "metadata": about, "nbformat": 4, "nbformat_minor": version}
    return json.dumps(whole, indent=1)


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files; text as it is, line ends included."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def commit(folder: Path, message: str, files: Mapping[str, str | bytes]) -> None:
    """Write files, and commit them."""
    if not (folder / ".git").exists():
        folder.mkdir(parents=True, exist_ok=True)
        git(folder, "init", "-q", "-b", "main")
    write(folder, files)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)


# --- a notebook, and nothing else -------------------------------------------------------------

WINES = """\
import pandas as pd
import numpy as np
import matplotlib.pyplot as plt
%matplotlib inline
!pip install seaborn
df = pd.read_csv("wines.csv")
df.head()
"""


def wines(r: random.Random) -> str:
    """Some wines, and whether people liked them."""
    rows = []
    for _ in range(900):
        acid = r.gauss(6, 1.2)
        sugar = abs(r.gauss(4, 3))
        alcohol = r.uniform(8, 15)
        kind = r.choice(["red", "white", "rosé"])
        liking = 0.9 * (alcohol - 11) - 0.8 * (acid - 6) + (kind == "red") + r.gauss(0, 1)
        good = "yes" if liking > 0 else "no"
        rows.append([f"{acid:.2f}", f"{sugar:.1f}", f"{alcohol:.1f}", kind, good])
    return table(["acidity", "sugar", "alcohol", "kind", "good"], rows)


def notebook_only(folder: Path) -> None:
    """One notebook and its data, at the top, under a folder's name that says little."""
    commit(folder, "first commit", {"wines.csv": wines(random.Random(11))})
    explore = notebook(
        "# # Wine quality\nWhich wines do people like?",
        WINES,
        'df = pd.get_dummies(df, columns=["kind"])\ndf.fillna(0, inplace=True)',
        'from sklearn.ensemble import RandomForestClassifier\ny = df["good"]\n'
        'X = df.drop("good", axis=1)\nclf = RandomForestClassifier(n_estimators=50)\nclf.fit(X, y)',
        "%%time\nclf.score(X, y)",
        "print clf.feature_importances_",
    )
    commit(folder, "explore", {"Untitled.ipynb": explore})
    commit(folder, "ignore checkpoints", {".gitignore": ".ipynb_checkpoints\n*.pkl"})


# --- scripts, with requirements.txt -------------------------------------------------------------

TRAIN = """\
import pandas as pd, argparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
import joblib
from utils import *

DATA_PATH = 'data/churn.csv'
TARGET = 'churned'

if __name__ == '__main__':
    df = pd.read_csv(DATA_PATH)
    df = df.dropna()
    y = df[TARGET]
    X = df.drop(columns=[TARGET, 'customer_id'])
    X = pd.get_dummies(X)
    scaler = StandardScaler()
    scaler.fit(X)
    model = LogisticRegression(max_iter=1000)
    model.fit(scaler.transform(X), y)
    joblib.dump(model, 'model.pkl')
    print("accuracy: %s" % model.score(scaler.transform(X), y))
"""


def churn(r: random.Random) -> str:
    """Some customers, and whether they left."""
    rows = []
    for number in range(1200):
        months = r.randint(1, 60)
        plan = r.choice(["basic", "plus", "family"])
        calls = r.randint(0, 6)
        price = round(r.uniform(9, 60), 2)
        risk = 1.4 - 0.07 * months + 0.6 * calls + 0.8 * (plan == "basic") - 0.5
        left = int(r.random() < 1 / (1 + math.exp(-risk)))
        gap = "" if r.random() < 0.02 else months
        rows.append([f"C{number:05}", gap, plan, calls, price, left])
    return table(["customer_id", "months", "plan", "calls", "price", "churned"], rows)


def scripts(folder: Path) -> None:
    """Scripts at the top, a Makefile, settings of tools that the project uses otherwise."""
    commit(
        folder,
        "Initial commit",
        {
            "README.md": "# Churn prediction :rocket:\n\n"
            "[![build](https://example.invalid/b.svg)](https://example.invalid)\n\n"
            'Predicts which customers will "leave" next month, from their contract.   \n\n'
            "## How to run\n\n    make train\n",
            "train.py": TRAIN,
            "utils.py": "import numpy as np\ndef rmse(a,b):\n  return np.sqrt(((a-b)**2).mean())\n",
            "data/churn.csv": churn(random.Random(12)),
        },
    )
    commit(
        folder,
        "requirements, makefile",
        {
            "requirements.txt": "# core\npandas==2.2.0   # do not touch\nscikit-learn==1.0.2\n"
            "numpy>=1.20\njoblib\n-r requirements-dev.txt\n-e .\n--extra-index-url "
            "https://example.invalid/simple\n",
            "requirements-dev.txt": "pytest>=6\ntqdm>=4.60 ; python_version >= '3.6' \\\n"
            "    --hash=sha256:0000\n",
            "Makefile": "PY ?= python\n\nall: train\n\n"
            "train: data/churn.csv\n\t$(PY) train.py\n\n"
            "test:\n\t$(PY) -m pytest tests  \n\n"
            "clean::\n\trm -f model.pkl\n.PHONY: all train test",
            ".gitignore": "*.pyc\n__pycache__/\n.venv/\n/model.pkl\n*.log  \n!keep.log\n",
            "tests/test_utils.py": "from utils import rmse\n\n\ndef test_rmse():\n"
            "    import numpy as np\n    assert rmse(np.array([1.]), np.array([1.])) == 0\n",
            "tests/conftest.py": "import sys, os\nimport not_installed_anywhere\n",
            "setup.cfg": "[flake8]\nmax-line-length = 120\n\n[tool:pytest]\naddopts = -q\n",
            "pytest.ini": "[pytest]\naddopts = -q --no-such-option\n",
            "config/model.yaml": "# ours\nC: 1.0\npenalty: l2\n",
            ".pre-commit-config.yaml": "repos:\n- repo: https://example.invalid/black\n"
            "  rev: 22.3.0\n  hooks:\n  - id: black\n    args: [--line-length=120]\n",
        },
    )


# --- conda, and a package -----------------------------------------------------------------------

HOUSES = '''\
"""Feature preparation"""
import pandas as pd


def load(path="data/raw/houses.csv.gz"):
    return pd.read_csv(path)


def prepare(df):
    df = df.copy()
    target = df.pop("price")
    df["age"] = 2024 - df["built"]
    return df, target
'''


def houses(r: random.Random) -> str:
    """Some houses, and what they were sold for."""
    rows = []
    for _ in range(1000):
        size = r.randint(35, 240)
        rooms = r.randint(1, 7)
        built = r.randint(1900, 2022)
        district = r.choice(["north", "south", "harbour", "old town"])
        worth = 2200 * size + 9000 * rooms + 400 * (built - 1900) + 60_000 * (district == "harbour")
        sold = round(worth * r.gauss(1, 0.06))
        rows.append([size, rooms, built, district, sold])
    return table(["size", "rooms", "built", "district", "price"], rows)


def conda(folder: Path) -> None:
    """A package under src/ whose name is the obvious one, and an environment with a long tail."""
    import gzip

    commit(
        folder,
        "Skeleton",
        {
            "environment.yml": "name: house_prices\nchannels:\n  - conda-forge\n  - defaults\n"
            "dependencies:\n  - python=3.8\n  - pandas=2.2\n  - conda-forge::seaborn>=0.12\n"
            "  - scikit-learn=1.0.2=py38h51a8e06_1\n  - mkl\n  - pip\n  - pip:\n"
            "    - tqdm==4.66.1\n    - -e .\nprefix: /home/somebody/miniconda3/envs/house_prices\n",
            "setup.py": "from setuptools import setup, find_packages\n"
            "REQS = ['pandas>=1.0']\n\n"
            "setup(name='house_prices', version='0.3.1', description='What houses sell for.',\n"
            "      packages=find_packages('src'), package_dir={'': 'src'},\n"
            "      install_requires=REQS)\n",
            "src/house_prices/__init__.py": "__version__='0.3.1'\n",
            "src/house_prices/prepare.py": HOUSES,
            "README.rst": "House prices\n============\n\nModels of house prices.\n",
        },
    )
    packed = gzip.compress(houses(random.Random(13)).encode(), mtime=0)
    model = "from sklearn.ensemble import ExtraTreesRegressor\nmodel = ExtraTreesRegressor()"
    commit(
        folder,
        "Data, notebooks",
        {
            "data/raw/houses.csv.gz": packed,
            "notebooks/01-explore.ipynb": notebook(
                "# Explore",
                "from house_prices.prepare import *\ndf = load('../data/raw/houses.csv.gz')",
                model + "\nX, y = prepare(df)\nmodel.fit(X, y)",
                version=2,
            ),
            "notebooks/map.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
            ".python-version": "3.8.12\n",
            ".gitlab-ci.yml": "test:\n  image: continuumio/miniconda3\n  script:\n    - pytest\n",
            "tests/test_problem.py": "def test_ours():\n    assert 1 + 1 == 2\n",
        },
    )


# --- poetry, with pipelines of its own ------------------------------------------------------------


def sensors(r: random.Random) -> str:
    """Some machines, and which fault they had."""
    rows = []
    for number in range(1500):
        fault = r.choices(["none", "bearing", "belt"], [6, 2, 2])[0]
        heat = r.gauss(60 + 22 * (fault == "bearing"), 6)
        noise = r.gauss(30 + 14 * (fault == "belt"), 4)
        speed = r.gauss(1500 - 160 * (fault == "belt"), 60)
        rows.append([f"{heat:.1f}", f"{noise:.1f}", round(speed), f"M{number % 7}", fault])
    return table(["heat", "noise", "speed", "machine", "fault"], rows)


def poetry(folder: Path) -> None:
    """A package at the top, tests, tox, and a workflow with the template's own file name."""
    pyproject = """\
[tool.poetry]
name = "fault-finder"
version = "1.4.0"
description = "Finds out which part of a machine is broken."
authors = ["Ada Example <ada@example.invalid>"]
license = "MIT"
readme = "README.md"
repository = "https://example.invalid/fault-finder"

[tool.poetry.dependencies]
python = ">=3.9,<3.13"
pandas = "^2.2"
click = { version = "~8.1", optional = true }
pydantic = "^1.10"  # v2 breaks us

[tool.poetry.group.dev.dependencies]
pytest = "^7.4"
hypothesis = "*"

[tool.poetry.scripts]
fault-finder = "fault_finder.cli:main"

[tool.black]
line-length = 88  # as everywhere

[tool.pytest.ini_options]
addopts = "--maxfail=1"

[build-system]
requires = ["poetry-core"]
build-backend = "poetry.core.masonry.api"
"""
    commit(
        folder,
        "chore: scaffold",
        {
            "pyproject.toml": pyproject,
            "README.md": "# fault-finder\n\nFinds faults.\n",
            "fault_finder/__init__.py": "",
            # What is installed must not be hidden by what stands at the top.
            "joblib.py": "raise SystemExit('not the one that scikit-learn needs')\n",
            "fault_finder/model.py": "import pandas as pd\nfrom sklearn.svm import SVC\n\n\n"
            "def train(path: str) -> SVC:\n    frame = pd.read_csv(path)\n"
            "    label_col = 'fault'\n    features = frame.drop([label_col, 'machine'], axis=1)\n"
            "    return SVC().fit(features, frame[label_col])\n",
            "data/sensors.csv": sensors(random.Random(14)),
            "data/readme.csv": "column,meaning\nheat,degrees\n",
        },
    )
    commit(
        folder,
        "ci: tests",
        {
            ".github/workflows/checks.yml": "name: tests\non: [push]\njobs:\n  test:\n"
            "    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n"
            "      - run: pipx run poetry install && poetry run pytest\n",
            "tox.ini": "[tox]\nenvlist = py39\n[testenv]\ncommands = pytest\n",
            "tests/__init__.py": "",
            "tests/test_model.py": "from fault_finder.model import train\n\n\ndef test_train():\n"
            '    assert train("data/sensors.csv").n_features_in_ == 3\n',
            ".editorconfig": "root = true\n\n[*]\nindent_size = 2\nend_of_line = lf\n",
            "poetry.lock": "# This file is automatically @generated by Poetry.\n",
            "Dockerfile": "FROM python:3.9\nCOPY . /app\n",
        },
    )


# --- a package that is called src ----------------------------------------------------------------

TRAINER = """\
import os, sys
from dataclasses import dataclass
from src.utils import save_object
from sklearn.linear_model import LinearRegression


@dataclass
class ModelTrainerConfig:
    path=os.path.join("output","model.pkl")
    target_column_name="math_score"


class ModelTrainer:
    def initiate(self, train):
        target=ModelTrainerConfig.target_column_name
        model=LinearRegression().fit(train.drop(columns=[target],axis=1), train[target])
        save_object(ModelTrainerConfig.path, model)
"""


def students(r: random.Random) -> str:
    """Some students, and how they did in mathematics."""
    rows = []
    for _ in range(900):
        lunch = r.choice(["standard", "free/reduced"])
        course = r.choice(["none", "completed"])
        reading = r.randint(30, 100)
        writing = min(100, max(0, reading + r.randint(-8, 8)))
        score = 0.85 * reading + 8 * (lunch == "standard") + r.gauss(0, 5)
        rows.append([lunch, course, reading, writing, max(0, min(100, round(score)))])
    header = ["lunch", "preparation", "reading_score", "writing_score", "math_score"]
    return table(header, rows)


def package_called_src(folder: Path) -> None:
    """The shape of many courses: src/ is the package, a notebook, an app, a list with `-e .`."""
    commit(
        folder,
        "initial",
        {
            "README.md": "## End to end ML project\n",
            "requirements.txt": "pandas\nflask\n-e .\n",
            "setup.py": "from setuptools import find_packages,setup\n\n"
            "HYPEN_E_DOT='-e .'\ndef get_requirements(file_path):\n"
            "    with open(file_path) as f:\n        return f.read().split()\n\n"
            "setup(name='mlproject',version='0.0.1',packages=find_packages(),\n"
            "      install_requires=get_requirements('requirements.txt'))\n",
            "src/__init__.py": "",
            "src/utils.py": "import os\nimport pickle\n\ndef save_object(path, obj):\n"
            "    os.makedirs(os.path.dirname(path), exist_ok=True)\n"
            "    pickle.dump(obj, open(path, 'wb'))\n",
            "src/components/__init__.py": "",
            "src/components/model_trainer.py": TRAINER,
            "src/pipeline/__init__.py": "",
            "src/pipeline/predict_pipeline.py": "from src.utils import save_object\n\n"
            "class PredictPipeline:\n    def predict(self,features): pass\n\n"
            "if __name__=='__main__': print('ready')\n",
            "app.py": "from flask import Flask\n"
            "from src.pipeline.predict_pipeline import PredictPipeline\napp=Flask(__name__)\n",
            "notebook/data/stud.csv": students(random.Random(17)),
            "notebook/1 . EDA.ipynb": notebook(
                "import pandas as pd\ndf = pd.read_csv('data/stud.csv')", "df.head()"
            ),
        },
    )


# --- Windows ---------------------------------------------------------------------------------


def energy(r: random.Random) -> str:
    """Some offices, and the energy that they used."""
    rows = []
    for _ in range(700):
        staff = r.randint(3, 80)
        area = r.randint(60, 900)
        cold = r.uniform(-8, 24)
        heating = r.choice(["gas", "heat pump", "oil"])
        used = 3 * staff + 0.4 * area + 6 * (24 - cold) + 40 * (heating == "oil") + r.gauss(0, 14)
        rows.append([staff, area, f"{cold:.1f}", heating, f"{used:.1f}"])
    return table(["staff", "floor area", "outside temp", "heating", "kWh used"], rows, "\r\n")


def windows(text: str) -> bytes:
    """Write a text as Windows does: its line ends, after a byte-order mark."""
    return b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()


def spaces(folder: Path) -> None:
    """Names with spaces, line ends of Windows, marks before the first byte."""
    commit(
        folder,
        "add files via upload",
        {
            "Office Energy/office energy (2023).csv": energy(random.Random(15)),
            "Office Energy/My Notebook.ipynb": notebook(
                "import pandas as pd\n"
                'data = pd.read_csv(r"Office Energy\\office energy (2023).csv")',
                "y = data['kWh used']\nX = data.drop(['kWh used'], axis=1)",
                "from sklearn.linear_model import LinearRegression\nLinearRegression().fit(X, y)",
            ).replace("\n", "\r\n"),
            "Read Me.txt": windows("Office energy\n"),
            "run model.py": windows("import os\nprint('hello')   \n"),
        },
    )
    commit(
        folder,
        "update",
        {
            "requirements.txt": "pandas>=2.2\r\nopenpyxl\r\n# end\r\n".encode("utf-16"),
            ".gitignore": windows("*.pyc\nThumbs.db\n"),
            "README.md": windows(
                "Office Energy\n=============\n\nHow much energy do offices use?\n"
            ),
            "notes [old].txt": b"mixed\r\nlines\n",
        },
    )


# --- no Git at all ------------------------------------------------------------------------------


def bikes(r: random.Random) -> str:
    """Some hours, and how many bikes were rented."""
    rows = []
    for _ in range(1000):
        hour = r.randint(0, 23)
        warm = r.uniform(-5, 32)
        rain = r.random() < 0.2
        rented = 40 + 9 * warm - 120 * rain + 130 * (hour in (8, 9, 17, 18)) + r.gauss(0, 25)
        rows.append([hour, f"{warm:.1f}", "yes" if rain else "no", max(0, round(rented))])
    return table(["hour", "temperature", "rain", "rented"], rows, "\n")


def no_git(folder: Path) -> None:
    """A folder from a shared drive, with a Pipfile, its own tests and an environment of its own."""
    write(
        folder,
        {
            "bike model.py": "import pandas as pd\ndf = pd.read_csv('bikes.csv')\n"
            "y = df['rented']\nX = pd.get_dummies(df.drop(columns='rented'))\n",
            "bikes.csv": bikes(random.Random(16)),
            "README.md": "Bikes\n\nHow many bikes will be rented?",
            "Makefile": "run:\n\tpython 'bike model.py'\n",
            "Pipfile": '[packages]\npandas = ">=2.2"\n'
            'requests = {version = "*", extras = ["socks"]}\n'
            '[requires]\npython_version = "3.9"\n',
            "old/bikes_v1.csv": "a,b\n1,2\n",
            "myenv/pyvenv.cfg": "home = /usr/bin\n",
            "myenv/lib/thing.csv": "rented\n1\n",
        },
    )


KINDS: dict[str, Before] = {
    "notebook": Before(notebook_only, "notebook", "wines.csv", "good", "binary"),
    "scripts": Before(
        scripts,
        "churn_prediction",
        "data/churn.csv",
        "churned",
        "binary",
        carried=frozenset({"pandas", "joblib", "tqdm"}),
    ),
    "conda": Before(
        conda,
        "house_prices_model",
        "data/raw/houses.csv.gz",
        "price",
        "regression",
        ci="gitlab",
        carried=frozenset({"pandas", "seaborn", "tqdm"}),
    ),
    "poetry": Before(
        poetry,
        "fault_finder_model",
        "data/sensors.csv",
        "fault",
        "multiclass",
        carried=frozenset({"pandas", "click", "hypothesis"}),
    ),
    "package called src": Before(
        package_called_src,
        "mlproject",
        "notebook/data/stud.csv",
        "math_score",
        "regression",
        carried=frozenset({"pandas", "flask"}),
    ),
    "windows": Before(
        spaces,
        "office_energy",
        "Office Energy/office energy (2023).csv",
        "kWh used",
        "regression",
        carried=frozenset({"pandas", "openpyxl"}),
    ),
    "without git": Before(
        no_git,
        "bikes",
        "bikes.csv",
        "rented",
        "regression",
        git=False,
        carried=frozenset({"pandas", "requests"}),
    ),
}
