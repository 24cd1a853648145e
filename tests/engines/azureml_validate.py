"""Load a pipeline or a schedule of Azure ML with its SDK, offline, and have the SDK validate it.

python azureml_validate.py FILE.yaml
"""

import sys
from pathlib import Path

from azure.ai.ml import load_job
from azure.ai.ml.entities._load_functions import load_schedule


def main() -> None:
    """Print `accepted`, or end with what is wrong."""
    file = Path(sys.argv[1])
    load = load_schedule if file.stem.endswith("_schedule") else load_job
    result = load(file)._validate()
    if not result.passed:
        sys.exit(str(result.error_messages))
    print("accepted")


if __name__ == "__main__":
    main()
