"""What the stand-in of peter-evans/create-pull-request does."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

ENV = os.environ


def main() -> None:
    """Write down what was asked, and what would be committed."""
    subprocess.run(["git", "add", "-A"], check=True)
    diff = subprocess.run(
        ["git", "diff", "--cached", "--stat"], check=True, capture_output=True, text=True
    ).stdout
    body = Path(ENV["BODY_PATH"]).read_text() if ENV["BODY_PATH"] else ENV["BODY"]
    asked = {"branch": ENV["BRANCH"], "title": ENV["TITLE"], "body": body, "diff": diff}
    asked["message"] = ENV["MESSAGE"]
    Path(ENV["STANDIN_RUN"], "pull-request.json").write_text(json.dumps(asked))
    print(f"Would propose {ENV['BRANCH']}:\n{diff}" if diff else "Nothing to propose.")


if __name__ == "__main__":
    main()
