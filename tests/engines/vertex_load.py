"""Load a compiled pipeline with Vertex AI's client, without an account, and print its nodes.

python vertex_load.py FILE.json
"""

import sys

from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform


def main() -> None:
    """Print the names of the nodes, or end with what is wrong."""
    job = aiplatform.PipelineJob(
        display_name="test",
        template_path=sys.argv[1],
        pipeline_root="gs://bucket/root",
        project="project",
        location="europe-west4",
        credentials=AnonymousCredentials(),
    )
    spec = job.to_dict()["pipelineSpec"]
    print(*sorted(spec["root"]["dag"]["tasks"]))


if __name__ == "__main__":
    main()
