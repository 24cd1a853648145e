"""Export: the compiled model of a package, for where there is nothing but a runtime of ONNX."""

import json
import shutil
from pathlib import Path

from .. import UsageError
from ..model_package import verified_manifest
from .model import FILE, load

SIGNATURE = "signature.json"


def export(package: Path, to: Path) -> str:
    """Write a compiled model, and a description of what it takes and returns.

    Args:
        package: The folder of the package.
        to: A folder, new or empty.

    Returns:
        A sentence.

    Raises:
        UsageError: The package is damaged, or has no compiled model; or the folder has files.
    """
    manifest = verified_manifest(package)
    version = manifest["version"]
    if FILE not in manifest["files"]:
        raise UsageError(
            f"{version} has no compiled model: its report says why, or it was packaged by a "
            "release before 0.3"
        )
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"{to} is not an empty folder: name another one")
    contract = json.loads((package / "contract.json").read_text("utf-8"))
    columns = load(package / FILE).columns
    inputs = [
        {"name": name}
        | ({"categories": columns.categories[name]} if name in columns.categories else {})
        for name in columns.names
    ]
    signature = {
        "version": version,
        "package_digest": manifest["package_digest"],
        "task": contract["task"],
        "input": {
            "name": "rows",
            "description": "Doubles, one row each: numbers as they are, of a category its place in "
            "the list, from 0 on, and NaN for what is missing.",
            "columns": inputs,
        },
        "output": {
            "name": "predictions",
            "columns": contract["classes"] or [contract["target"]],
        },
    }
    to.mkdir(parents=True, exist_ok=True)
    shutil.copy(package / FILE, to)
    text = json.dumps(signature, indent=2, ensure_ascii=False)
    (to / SIGNATURE).write_text(text, "utf-8")
    return f"{to}: {FILE} and {SIGNATURE} of {version}"
