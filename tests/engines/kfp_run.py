"""A stand-in for Kubeflow: compile an exported file, then run the commands of its nodes in order.

    python kfp_run.py FILE.py

The nodes are containers, which Kubeflow's own local runner starts with Docker alone. What is
compiled is read; a node runs here, in the project's folder, once all that it depends on succeeded.
"""

import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import yaml


def main() -> None:
    """Run the training, and end with 1 if a node fails."""
    file = Path(sys.argv[1])
    subprocess.run([sys.executable, str(file)], check=True)
    pipeline = next(iter(yaml.safe_load_all(file.with_suffix(".yaml").read_text("utf-8"))))
    tasks = pipeline["root"]["dag"]["tasks"]
    executors = pipeline["deploymentSpec"]["executors"]
    needs = {name: task.get("dependentTasks", []) for name, task in tasks.items()}
    env = os.environ | {"PROJECT": str(file.parents[2])}
    env.pop("PYTHONPATH", None)  # of Kubeflow, not of the image
    for name in TopologicalSorter(needs).static_order():
        executor = pipeline["components"][tasks[name]["componentRef"]["name"]]["executorLabel"]
        if subprocess.run(
            executors[executor]["container"]["command"], env=env, check=False
        ).returncode:
            sys.exit(f"{name} failed")


if __name__ == "__main__":
    main()
