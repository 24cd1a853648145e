"""The documents in `artifacts/`, typed: `documents.schema.json` is generated from these records.

To give one more document a type:

1. Write a class of its fields, in the order in which they are written, in a module here:

       class ImageDocument(Document):
           \"\"\"artifacts/image.json: an image that was built in this project.\"\"\"

                  step: Literal["image"] = "image"
           image: Annotated[str, Field(pattern="@sha256:[0-9a-f]{64}$")]
           note: Omittable[str] = None  # left out where it is None; `str | None` may be null

2. Import it below, and add it to `DOCUMENTS`. Parts of a document are classes of their own, of
   `Record`; a name such as `from` is a field `from_: Annotated[str, Field(alias="from")]`.
3. Remove the step from `UNTYPED` in copier/generate.py, and run `make generate`.
4. `artifacts.write(ImageDocument(...), started=..., data_digest=..., inputs=...)` writes it, and
   `artifacts.read(ImageDocument)` returns it; `write_fields` and `read_fields` are for those
   without a type.
"""

from .base import Champion, Digest, Digests, Document, Interval, Omittable, Record, Verdict
from .comparison import (
    BestComparison,
    Compared,
    ComparedSlice,
    Comparison,
    ComparisonDocument,
    Incomparable,
    NotCompared,
    Recipes,
)
from .controls import Change, ControlsDocument
from .data import Failure, IngestDocument, SplitDocument, ValidationDocument
from .evaluation import (
    Baseline,
    Baselines,
    Bin,
    Calibration,
    CostPerRow,
    Decision,
    Importance,
    Leaks,
    MetricsDocument,
    ModelFacts,
    Outcomes,
    Rarest,
    Ratio,
    Scores,
    Slice,
    TrainingDocument,
)
from .gate import Check, GateDocument, Rule
from .package import PackageDocument

__all__ = [
    "DOCUMENTS",
    "Baseline",
    "Baselines",
    "BestComparison",
    "Bin",
    "Calibration",
    "Champion",
    "Change",
    "Check",
    "Compared",
    "ComparedSlice",
    "Comparison",
    "ComparisonDocument",
    "ControlsDocument",
    "CostPerRow",
    "Decision",
    "Digest",
    "Digests",
    "Document",
    "Failure",
    "GateDocument",
    "Importance",
    "Incomparable",
    "IngestDocument",
    "Interval",
    "Leaks",
    "MetricsDocument",
    "ModelFacts",
    "NotCompared",
    "Omittable",
    "Outcomes",
    "PackageDocument",
    "Rarest",
    "Ratio",
    "Recipes",
    "Record",
    "Rule",
    "Scores",
    "Slice",
    "SplitDocument",
    "TrainingDocument",
    "ValidationDocument",
    "Verdict",
]

# Each step that leaves a document, and the type of it.
DOCUMENTS: dict[str, type[Document]] = {
    "ingest": IngestDocument,
    "validate": ValidationDocument,
    "split": SplitDocument,
    "train": TrainingDocument,
    "evaluate": MetricsDocument,
    "compare": ComparisonDocument,
    "gate": GateDocument,
    "package": PackageDocument,
    "controls": ControlsDocument,
}
