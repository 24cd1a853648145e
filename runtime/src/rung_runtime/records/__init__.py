"""The documents in `artifacts/`, typed: `documents.schema.json` is generated from these records.

To add a document:

1. Write a class of its fields, in the order in which they are written, in a module here:

       class ImageDocument(Document):
           \"\"\"artifacts/image.json: an image that was built in this project.\"\"\"

           step: Literal["image"] = "image"
           image: Annotated[str, Field(pattern="@sha256:[0-9a-f]{64}$")]
           note: Omittable[str] = None  # left out where it is None; `str | None` may be null

2. Import it below, and add it to `DOCUMENTS`. Parts of a document are classes of their own, of
   `Record`; a name such as `from` is a field `from_: Annotated[str, Field(alias="from")]`.
3. Run `make generate`.
4. `artifacts.write(ImageDocument(...), started=..., data_digest=..., inputs=...)` writes it, and
   `artifacts.read(ImageDocument)` returns it.
"""

from .attacks import MovedColumn, PrivacyDocument, RobustnessDocument
from .base import (
    Champion,
    Count,
    Digest,
    Digests,
    Document,
    Interval,
    NonNegative,
    Number,
    Omittable,
    Record,
    Timestamp,
    Verdict,
)
from .comparison import (
    BestComparison,
    Compared,
    ComparedSlice,
    Comparison,
    ComparisonDocument,
    FairnessChange,
    Incomparable,
    NotCompared,
    Recipes,
)
from .controls import Change, ControlsDocument
from .data import (
    Failure,
    IngestDocument,
    PartitionVerdict,
    RuleKind,
    SourceValidationDocument,
    SplitDocument,
    ValidationDocument,
)
from .deployment import (
    DeploymentDocument,
    DeploymentVerdict,
    ImageDocument,
    ShadowResult,
    SmokeResult,
    Stage,
    WatchResult,
    WatchVerdict,
)
from .evaluation import (
    Baseline,
    Baselines,
    Bin,
    Calibration,
    CostPerRow,
    Curve,
    Decision,
    GroupComparison,
    GroupRate,
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
from .explanations import (
    ColumnContributions,
    Contribution,
    ExplainedRow,
    ExplanationsDocument,
    Point,
    Which,
)
from .gate import Check, GateDocument, Rule
from .monitoring import (
    AlarmKind,
    AlarmRecord,
    CalibrationCheck,
    DriftDocument,
    Ends,
    Finding,
    LabelCounts,
    MetricCheck,
    MonitorDocument,
    Outcome,
    Signs,
    WindowComparison,
    WindowDrift,
    WindowPerformance,
    WindowSummary,
)
from .package import Compiled, PackageDocument

__all__ = [
    "DOCUMENTS",
    "AlarmKind",
    "AlarmRecord",
    "Baseline",
    "Baselines",
    "BestComparison",
    "Bin",
    "Calibration",
    "CalibrationCheck",
    "Champion",
    "Change",
    "Check",
    "ColumnContributions",
    "Compared",
    "ComparedSlice",
    "Comparison",
    "ComparisonDocument",
    "Compiled",
    "Contribution",
    "ControlsDocument",
    "CostPerRow",
    "Count",
    "Curve",
    "Decision",
    "DeploymentDocument",
    "DeploymentVerdict",
    "Digest",
    "Digests",
    "Document",
    "DriftDocument",
    "Ends",
    "ExplainedRow",
    "ExplanationsDocument",
    "Failure",
    "FairnessChange",
    "Finding",
    "GateDocument",
    "GroupComparison",
    "GroupRate",
    "ImageDocument",
    "Importance",
    "Incomparable",
    "IngestDocument",
    "Interval",
    "LabelCounts",
    "Leaks",
    "MetricCheck",
    "MetricsDocument",
    "ModelFacts",
    "MonitorDocument",
    "MovedColumn",
    "NonNegative",
    "NotCompared",
    "Number",
    "Omittable",
    "Outcome",
    "Outcomes",
    "PackageDocument",
    "PartitionVerdict",
    "Point",
    "PrivacyDocument",
    "Rarest",
    "Ratio",
    "Recipes",
    "Record",
    "RobustnessDocument",
    "Rule",
    "RuleKind",
    "Scores",
    "ShadowResult",
    "Signs",
    "Slice",
    "SmokeResult",
    "SourceValidationDocument",
    "SplitDocument",
    "Stage",
    "Timestamp",
    "TrainingDocument",
    "ValidationDocument",
    "Verdict",
    "WatchResult",
    "WatchVerdict",
    "Which",
    "WindowComparison",
    "WindowDrift",
    "WindowPerformance",
    "WindowSummary",
]

# Each step that leaves a document, and the type of it.
DOCUMENTS: dict[str, type[Document]] = {
    "ingest": IngestDocument,
    "validate": ValidationDocument,
    "split": SplitDocument,
    "train": TrainingDocument,
    "evaluate": MetricsDocument,
    "explain": ExplanationsDocument,
    "compare": ComparisonDocument,
    "gate": GateDocument,
    "package": PackageDocument,
    "controls": ControlsDocument,
    "deploy": DeploymentDocument,
    "drift": DriftDocument,
    "image": ImageDocument,
    "monitor": MonitorDocument,
    "privacy": PrivacyDocument,
    "robustness": RobustnessDocument,
    "validate_source": SourceValidationDocument,
}
