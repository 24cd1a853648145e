"""Packages made in a second from the example, and services of them: no project is installed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import leftovers
import polars as pl
from conftest import named_by, once

ROOT = Path(__file__).resolve().parent.parent

ROWS = 1_500


def package(
    module: Callable[[str], ModuleType],
    to: Path,
    seed: int = 0,
    *,
    is_compiled: bool = False,
    **contract: Any,
) -> Path:
    """Make a package of the example's first rows, with another seed or parts of the contract.

    All workers of a run train it once; who asks gets a copy.
    """
    run = os.environ.get(leftovers.MARK)  # the folder of the run; there is none in `make bench`
    if run is None:
        return make(module, to, seed, is_compiled, contract)
    folder = Path(run, "packages", named_by(seed, is_compiled, sorted(contract.items())))
    made = once(folder, lambda path: make(module, path, seed, is_compiled, contract))
    return shutil.copytree(made, to)


def make(
    module: Callable[[str], ModuleType],
    to: Path,
    seed: int,
    is_compiled: bool,
    contract: dict[str, Any],
) -> Path:
    """Train a model and write its package."""
    config, ingest, train, inference = map(
        module, ("config", "pipeline.ingest", "pipeline.train", "model_package")
    )
    problem = module("problem").folder()
    project = ROOT / "template"
    data = config.read(project / config.DATA, config.Data).model_copy(update=contract)
    source = ingest.read(project / data.source, data.separator).head(ROWS)
    rows = ingest.typed(source, data)
    settings = config.Model(seed=seed, params={"max_iter": 10 + seed})
    fitted = train.fit(rows, data, settings)
    to.mkdir(parents=True)
    train.save(fitted, to / "model.skops")
    shutil.copytree(problem, to / "problem", ignore=shutil.ignore_patterns("__pycache__"))
    features = module("problem.features").features
    y_pred = inference.predict(fitted, rows, data, features)
    if is_compiled:
        compile_estimator = module("compiled.convert").compile_estimator
        frame = features(ingest.inputs(rows, data))
        (to / "model.onnx").write_bytes(compile_estimator(fitted, frame, len(data.classes)))
    dtype = pl.Array(pl.Float64, y_pred.shape[1]) if y_pred.ndim == 2 else pl.Float64
    predictions = pl.DataFrame({"given": pl.Series(y_pred.tolist(), dtype=dtype)})
    profile = module("pipeline.training_profile").profile(rows, predictions, data)
    for name, content in (("contract", data.model_dump()), ("profile", profile)):
        (to / f"{name}.json").write_text(json.dumps(content))
    digest = module("artifacts").digest
    files = {
        path.relative_to(to).as_posix(): digest(path)
        for path in sorted(to.rglob("*"))
        if path.is_file()
    }
    whole = inference.package_digest(files)
    now = datetime.now(UTC)
    manifest = {
        "version": f"{now:%Y%m%d-%H%M%S}-{whole[7:15]}",
        "created": now.isoformat(),
        "package_digest": whole,
        "model_digest": files["model.skops"],
        "files": files,
    }
    (to / "manifest.json").write_text(json.dumps(manifest))
    return to


def variant(
    module: Callable[[str], ModuleType],
    folder: Path,
    to: Path,
    texts: dict[str, str],
    hour: str = "000000",
    **manifest: Any,
) -> dict[str, Any]:
    """Copy a package with other texts of files, whole in itself, and return its manifest.

    Args:
        module: Imports a project's modules.
        folder: Of the package that is copied.
        to: Where there is none yet.
        texts: By the name of a file, what is put before its own text.
        hour: The six digits of its version by which versions are sorted.
        manifest: Keys of its manifest that are not what they should be.
    """
    shutil.copytree(folder, to)
    for name, text in texts.items():
        own = (to / name).read_text() if (to / name).exists() else ""
        (to / name).write_text(text + own)
    whole: dict[str, Any] = json.loads((to / "manifest.json").read_text())
    names = {*whole["files"], *texts}
    whole["files"] = {name: module("artifacts").digest(to / name) for name in sorted(names)}
    whole["package_digest"] = module("model_package").package_digest(whole["files"])
    whole["version"] = f"20260101-{hour}-{whole['package_digest'][7:15]}"
    whole |= manifest
    (to / "manifest.json").write_text(json.dumps(whole))
    return whole


class Server:
    """A service in a process of its own."""

    def __init__(
        self,
        source: Path,
        folder: Path | None,
        cwd: Path,
        listening: socket.socket | None = None,
        **options: Any,
    ) -> None:
        """Start it, and wait until it is ready or has ended."""
        self.folder = folder
        self.cwd = cwd
        self.log = str(cwd / "predictions")
        # The model is called like the project's package.
        cwd.mkdir(parents=True, exist_ok=True)
        (cwd / "pyproject.toml").write_text('[tool.rung]\npackage = "flight_delays"\n')
        options = {"log": self.log, "log_seconds": 0.5} | options
        own = None
        if listening is None and not options.keys() & {"host", "port"}:
            # It listens before the service starts: a port that is only known to be free may be that
            # of another test's service by then, which would answer in its place.
            listening = own = socket.create_server(("127.0.0.1", 0), backlog=1024)
        if listening:
            options.setdefault("port", listening.getsockname()[1])
        elif "port" not in options:
            with socket.create_server(("127.0.0.1", 0)) as free:
                options["port"] = free.getsockname()[1]
        fds = [listening.fileno()] if listening else []
        self.url = f"http://127.0.0.1:{options['port']}"
        code = (
            f"import socket, sys; from pathlib import Path; sys.path.insert(0, {str(source)!r})\n"
            "from rung_runtime import serving\nfrom rung_runtime.config.delivery import Service\n"
            f"folder = {str(folder)!r}\n"
            f"settings = Service(**{options!r})\n"
            f"ours = [socket.socket(fileno=fd) for fd in {fds}]\n"
            "serving.serve(None if folder == 'None' else Path(folder), settings, *ours)\n"
        )
        cwd.mkdir(parents=True, exist_ok=True)
        self.output = (cwd / "output.log").open("w")
        command = [sys.executable, "-c", code]
        self.process = subprocess.Popen(
            command, cwd=cwd, stdout=self.output, stderr=self.output, pass_fds=fds
        )
        if own:
            own.close()
        for _ in range(600):
            if self.process.poll() is not None or self.ready():
                break
            time.sleep(0.1)

    def ready(self) -> bool:
        """Tell whether it says that it is."""
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=1)  # it may listen and not answer yet
            return answer.status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """End it with SIGTERM."""
        self.process.terminate()
        code = self.process.wait(timeout=60)
        self.output.close()
        return code
