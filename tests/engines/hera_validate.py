"""Validate documents of Argo Workflows by Hera's models of its schema, and find unknown keys.

    python hera_validate.py FILE.yaml

Hera's models let keys pass that they do not know: what is not in them after reading is one.
"""

import sys
from pathlib import Path
from typing import Any

import yaml
from hera.workflows.models import CronWorkflow, WorkflowTemplate

KINDS = {"WorkflowTemplate": WorkflowTemplate, "CronWorkflow": CronWorkflow}


def unknown(written: Any, read: Any, path: str) -> list[str]:
    """Name the keys that were written and not read."""
    if isinstance(written, dict) and isinstance(read, dict):
        keys = [f"{path}.{key}" for key in written if key not in read]
        shared = [key for key in written if key in read]
        return keys + [
            u for key in shared for u in unknown(written[key], read[key], f"{path}.{key}")
        ]
    if isinstance(written, list) and isinstance(read, list):
        pairs = enumerate(zip(written, read, strict=True))
        return [u for number, pair in pairs for u in unknown(*pair, f"{path}[{number}]")]
    return []


def main() -> None:
    """Print the name of each document, or end with what is wrong."""
    for document in yaml.safe_load_all(Path(sys.argv[1]).read_text("utf-8")):
        if document is None:
            continue
        model = KINDS[document["kind"]].model_validate(document)
        read = model.model_dump(by_alias=True, exclude_none=True, mode="json")
        if keys := unknown(document, read, document["kind"]):
            sys.exit(f"unknown keys: {', '.join(keys)}")
        print(document["kind"], document["metadata"]["name"])


if __name__ == "__main__":
    main()
