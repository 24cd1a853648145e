"""What a person would write by hand: read the file, fit the estimator, score it. One process.

It runs in a project's environment, in the project's folder, and takes the columns, their types and
the parameters from config/, so that it does the same work as the pipeline it is compared with.
"""

from pathlib import Path

import polars as pl
import polars.selectors as cs
import yaml
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

data = yaml.safe_load(Path("config/data.yaml").read_text())
model = yaml.safe_load(Path("config/model.yaml").read_text())
target = data["target"]
columns = data["columns"]
names = [name for name in columns if name not in {target, *data.get("keys", [])}]
categories = [name for name in names if columns[name]["type"] == "category"]

rows = pl.read_csv(data["source"], try_parse_dates=True)
if data["split"]["by"] == "time":
    rows = rows.sort(data["split"]["column"])
else:
    rows = rows.sample(fraction=1, shuffle=True, seed=0)
inputs = rows.select(names).with_columns(
    cs.temporal().dt.hour().name.suffix(" hour"),
    cs.temporal().dt.weekday().name.suffix(" weekday"),
    cs.temporal().dt.month().name.suffix(" month"),
    *(pl.col(c).cast(pl.Enum(rows[c].cast(str).drop_nulls().unique().sort())) for c in categories),
)
inputs = inputs.select(~cs.temporal())
cut = int(len(rows) * 0.8)

fitted = HistGradientBoostingClassifier(
    categorical_features="from_dtype", random_state=model.get("seed", 0), **model.get("params", {})
).fit(inputs[:cut], rows[target][:cut].to_numpy())
print(roc_auc_score(rows[target][cut:].to_numpy(), fitted.predict_proba(inputs[cut:])[:, 1]))
