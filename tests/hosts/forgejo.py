"""Forgejo and Gitea: act runs the jobs, as their own runners, which descend from it, do.

Actions are named by their whole address in these workflows, which act does not read: exactly
`https://github.com/` is taken out of a throw-away clone. All else is as in `hosts.github`.
"""

from __future__ import annotations

import re

from hosts.github import HOSTED, GitHub


class Forgejo(GitHub):
    """A repository on Forgejo."""

    name = "forgejo"
    workflows = ".forgejo/workflows"
    labels = (*HOSTED, "docker")

    def readable(self, text: str) -> str:
        """Take what act cannot read out of a workflow's text."""
        return super().readable(re.sub(r"(\buses: )https://github\.com/", r"\1", text))


class Gitea(Forgejo):
    """A repository on Gitea."""

    name = "gitea"
    workflows = ".gitea/workflows"
