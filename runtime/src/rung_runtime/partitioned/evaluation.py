"""Importance and intervals of `ml evaluate` on the workers of a cluster: the same numbers.

What is random is drawn here, in the order of one machine, or from a seed of its own.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from .. import UsageError, model_package, project
from ..artifacts import MODEL
from ..config import METRICS, Config, Data
from ..config.scale import load_scale
from ..engines import open_engine
from ..engines.interface import Engine, Files, Job
from ..pipeline.importance import Shuffler
from ..pipeline.metrics import Floats, Rows
from ..pipeline.resampling import Resampled, Resampler
from ..problem import trusted
from . import project_code

CONTENT = "content.pickle"
ESTIMATOR = "model.skops"


class Call(NamedTuple):
    """A number that is resampled.

    Attributes:
        metric: "": the skill.
        y_pred: The name of the predictions.
        reference: The name of what a skill is over.
        part: The number of a slice; None: all rows.
        bound: Of a skill, to compare with.
    """

    metric: str
    y_pred: str
    reference: str = ""
    part: int | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Content:
    """What workers need to resample."""

    resampler: Resampler  # which has drawn all that will be asked for
    predictions: dict[str, Floats]
    parts: list[Rows]

    def __call__(self, call: Call) -> Resampled:
        """Return a number and its resamples."""
        rows = None if call.part is None else self.parts[call.part]
        y_pred = self.predictions[call.y_pred]
        if call.metric:
            return self.resampler.score(call.metric, y_pred, rows)
        reference = self.predictions[call.reference]
        return self.resampler.skill(y_pred, reference, rows, call.bound)


class Spread:
    """Has workers compute what `ml evaluate` would compute here."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def shuffle(self, shuffler: Shuffler, chunks: list[list[str]]) -> list[list[float]]:
        """Return what a shuffler returns of each list of columns; see `importance.Caller`.

        Its estimator is the one in the file that `ml train` left.
        """
        content = (shuffler.rows, shuffler.data.model_dump_json(), shuffler.metric)
        files = {ESTIMATOR: MODEL, **project_code.files()}
        return self._results(partial(start_shuffling, list(trusted())), content, files, chunks)

    def resample(
        self,
        resampler: Resampler,
        predictions: dict[str, Floats],
        parts: list[Rows],
        config: Config,
    ) -> Resampler:
        """Return a resampler that has the results of all that `evaluate.judge` asks it for.

        Args:
            resampler: Before its first draw.
            predictions: Those of the model, as `model`, and of the baselines.
            parts: The indices of the rows of each slice.
            config: With task and gate.
        """
        gate = config.gate
        calls = [Call(metric, "model") for metric in METRICS[config.data.task]]
        calls += [Call("", "model", name) for name in ("constant", "linear")]
        for number in range(len(parts)):
            calls.append(Call("", "model", "constant", number, gate.slice_skill))
            calls.append(Call(gate.metric, "model", part=number))
        resampler.draw([None, *parts])
        content = Content(resampler, predictions, parts)
        results: list[Resampled] = self._results(start_resampling, content, {}, calls)
        return Remembered(content, dict(zip(calls, results, strict=True)))

    def _results(
        self,
        start: Callable[[Files], Callable[[Any], Any]],
        content: object,
        files: dict[str, Path],
        items: Sequence[Any],
    ) -> list[Any]:
        """Return the result of each item.

        Raises:
            UsageError: There is none of one.
        """
        results: dict[int, Any] = {}
        with TemporaryDirectory(prefix="ml-evaluate-") as folder:
            path = Path(folder, CONTENT)
            path.write_bytes(pickle.dumps(content))
            for outcome in self.engine.run(Job(start, {CONTENT: path, **files}), items):
                if outcome.result is None:
                    raise UsageError(outcome.error)
                results[outcome.index] = outcome.result
        return [results[index] for index in range(len(items))]


class Remembered(Resampler):
    """A resampler whose results are there; what is not among them is computed here."""

    def __init__(self, content: Content, results: dict[Call, Resampled]) -> None:
        self.__dict__.update(content.resampler.__dict__)
        self.content = content
        self.results = results

    def score(self, metric: str, y_pred: Floats, rows: Rows | None = None) -> Resampled:
        call = self._call(metric, y_pred, None, rows, None)
        return self.results.get(call) or super().score(metric, y_pred, rows)

    def skill(
        self,
        y_pred: Floats,
        reference: Floats,
        rows: Rows | None = None,
        bound: float | None = None,
    ) -> Resampled:
        call = self._call("", y_pred, reference, rows, bound)
        return self.results.get(call) or super().skill(y_pred, reference, rows, bound)

    def _call(
        self,
        metric: str,
        y_pred: Floats,
        reference: Floats | None,
        rows: Rows | None,
        bound: float | None,
    ) -> Call:
        """Return the call that these arguments make; arrays are told apart by identity."""
        names = {id(values): name for name, values in self.content.predictions.items()}
        places = {id(part): number for number, part in enumerate(self.content.parts)}
        part = None if rows is None else places.get(id(rows), -1)
        over = "" if reference is None else names.get(id(reference), "?")
        return Call(metric, names.get(id(y_pred), "?"), over, part, bound)


def start_shuffling(types: list[str], files: Files) -> Shuffler:
    """Return what shuffles columns and predicts, by the model that was sent."""
    rows, contract, metric = pickle.loads(files[CONTENT].read_bytes())
    folder = files[project_code.PROBLEM]
    name = project_code.package_name(folder)
    fitted = model_package.load_estimator(files[ESTIMATOR], types, problem=name)
    features = project_code.load_features(folder)
    return Shuffler(fitted, features, rows, Data.model_validate_json(contract), metric)


def start_resampling(files: Files) -> Content:
    """Return what resamples a number."""
    content: Content = pickle.loads(files[CONTENT].read_bytes())
    return content


@contextmanager
def open_spread(config: Config) -> Iterator[Spread | None]:
    """Yield what has workers compute, if `config/scale.yaml` names a cluster of the model's engine.

    Workers that would start on this machine add nothing to it.

    Raises:
        UsageError: The cluster cannot be reached.
    """
    settings = load_scale()
    own = settings.engine or project.current().engine
    if not settings.scheduler or own != config.model.engine:
        yield None
        return
    with open_engine(config.model.engine) as engine:
        yield Spread(engine)
