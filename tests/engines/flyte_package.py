"""Print what a package for a Flyte cluster holds, as JSON.

    python flyte_package.py PACKAGE.tgz

The files in it are messages of flyteidl, which is in an environment that has flytekit.
"""

import json
import sys
import tarfile

from flyteidl.admin.launch_plan_pb2 import LaunchPlan
from flyteidl.admin.task_pb2 import TaskSpec
from flyteidl.admin.workflow_pb2 import WorkflowSpec
from flyteidl.core.tasks_pb2 import Resources
from google.protobuf.json_format import MessageToDict

KINDS = {"1": TaskSpec, "2": WorkflowSpec, "3": LaunchPlan}  # by the end of a file's name


def main() -> None:
    """Print tasks, the nodes of workflows, and launch plans, each by its name."""
    content: dict[str, dict[str, object]] = {"tasks": {}, "workflows": {}, "plans": {}}
    with tarfile.open(sys.argv[1]) as package:
        for member in package:
            file = package.extractfile(member)
            message = KINDS[member.name[-4]]()
            message.ParseFromString(file.read() if file else b"")
            match message:
                case TaskSpec():
                    content["tasks"][message.template.id.name] = MessageToDict(message.template)
                case WorkflowSpec():
                    nodes = [node for node in message.template.nodes if node.id != "start-node"]
                    content["workflows"][message.template.id.name] = [
                        {
                            "name": node.id,
                            "after": sorted({*node.upstream_node_ids} - {"start-node"}),
                            "requests": {
                                Resources.ResourceName.Name(entry.name): entry.value
                                for entry in node.task_node.overrides.resources.requests
                            },
                        }
                        for node in nodes
                    ]
                case LaunchPlan():
                    content["plans"][message.id.name] = MessageToDict(message.spec)
    print(json.dumps(content))


if __name__ == "__main__":
    main()
