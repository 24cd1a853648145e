"""Have release 0.3.0 write its documents, a registry with a package, and a prediction log.

    python tests/data/documents-0.3/make.py

The code is the release's own, out of this repository's history; the libraries are those of today.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PACKAGE = "template/src/{{package_name}}/problem"
TRAIN = """
from rung_runtime import registry
from rung_runtime.cli.app import STEPS, perform
registry.refresh_champion_pointer()
for name in STEPS: perform(name)
registry.register()
"""
ML = "from rung_runtime.cli import main\nmain()"
# Each of these rows has a label but the last hundred.
ASK = """
import json
import httpx
import polars as pl
from pathlib import Path
from rung_runtime import model_package
from rung_runtime.serving.rows import rows_from_frame
model = model_package.load_package()
holdout = pl.read_parquet("data/interim/holdout.parquet").head(400)
contract = model.request_contract
rows = rows_from_frame(model.read(holdout.select(*contract.columns)), contract)
url = json.loads(Path("service/supervisor.json").read_text())["url"]
lines = ["request_id,row,delayed"]
for start in range(0, 400, 100):
    part = {"rows": rows[start : start + 100]}
    headers = {"X-Request-Id": f"request-{start}"}
    answer = httpx.post(f"{url}/predict", json=part, headers=headers, trust_env=False).json()
    for row, truth in enumerate(holdout["delayed"][start : start + 100] if start < 300 else ()):
        lines.append(f"{answer['request_id']},{row},{str(truth).lower()}")
Path("labels.csv").write_text("\\n".join(lines) + "\\n")
known = {"version": answer["version"], "rows": rows[-20:]}
known["predictions"] = answer["predictions"][-20:]
Path("answers.json").write_text(json.dumps(known))
"""


def make(folder: Path) -> None:
    """Run the release in an empty folder."""
    commit = tomllib.loads((ROOT / "docs/releases.toml").read_text("utf-8"))["0.3.0"]
    paths = ["template/config", "template/data", PACKAGE, "runtime/src/rung_runtime"]
    archive = subprocess.check_output(["git", "-C", str(ROOT), "archive", commit, *paths])
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    project = folder / "template"
    (project / "src/{{package_name}}").rename(project / "src/flights")
    (folder / "runtime/src/rung_runtime").rename(project / "src/rung_runtime")
    (project / "pyproject.toml").write_text("[tool.rung]\npackage = 'flights'\nlevel = 2\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = f"service: {{port: {port}, log_seconds: 0.5, drain_seconds: 1}}"
    delivery = f"registry: registry\n{service}\nwatch: {{seconds: 1}}\n"
    (project / "config/delivery.yaml").write_text(delivery)
    (project / "config/drift.yaml").write_text("window: {hours: 0, rows: 100}\n")

    def run(code: str, *args: str) -> None:
        env = os.environ | {"PYTHONPATH": str(project / "src")}
        subprocess.run([sys.executable, "-c", code, *args], cwd=project, env=env, check=True)

    def train(iterations: int) -> None:
        model = f"params: {{max_iter: {iterations}, learning_rate: 0.3, max_leaf_nodes: 7}}\n"
        (project / "config/model.yaml").write_text(model)
        run(TRAIN)
        run(ML, "deploy")

    try:
        train(8)
        run(ASK)
        run("import time\ntime.sleep(2)")
        run(ML, "labels", "add", "labels.csv")
        run(ML, "monitor")
        for name in ("config", "registry", "predictions"):
            locks = shutil.ignore_patterns("*.lock")
            shutil.copytree(project / name, HERE / "project" / name, ignore=locks)
        shutil.copy(project / "answers.json", HERE / "project")
        train(9)
    finally:
        run(ML, "stop")
    settings = "registry: registry\nservice: {log_seconds: 0.5}\n"
    (HERE / "project/config/delivery.yaml").write_text(settings)
    for path in (project / "artifacts").glob("*.json"):
        shutil.copy(path, HERE)


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        make(Path(temporary))
