"""The environment of the programs that we start and that run a model's code.

A list of what is passed on, not of what is held back, because a token that nobody has thought of
yet has a name that is not in it. A job's tokens and a cloud's keys stay with the command that needs
them.
"""

import os
import re
from collections.abc import Iterable

HARMLESS = {
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TERM",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SYSTEMROOT",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPYCACHEPREFIX",
    "PYTHONUNBUFFERED",
    "PYTHONUTF8",
    "PYTHONIOENCODING",
    "PYTHONHASHSEED",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
}
PREFIXES = ("LC_", "OMP_")
# What a platform gives to a job alone, which nobody may have passed on.
PLATFORM_TOKEN = re.compile(
    r"ACTIONS_\w+"  # identity, artifacts and cache of GitHub, Gitea and Forgejo
    r"|\w+_(?:ID|OIDC)_TOKEN(?:_V2)?"  # the identity of a job: GitLab's id_tokens, CircleCI's
    r"|(?:BITBUCKET|BUILDKITE|CI|CIRCLE|FORGEJO|GH|GITEA|GITHUB|GITLAB|RUNNER|SYSTEM)"
    r"_\w*(?:TOKEN|PASSWORD|JWT)\w*"
    r"|CI_REPOSITORY_URL"  # with the job's token in it
    r"|DOCKER_AUTH_CONFIG|ML_REGISTRY_AUTH"  # of the registry, whose alias moves with it
)


def is_platform_token(name: str) -> bool:
    """Check whether a variable is a token that a CI platform gives to its jobs."""
    return PLATFORM_TOKEN.fullmatch(name) is not None


def passed_on(more: Iterable[str] = ()) -> dict[str, str]:
    """Return the part of the environment that holds no token and no key.

    Args:
        more: Names of further variables to pass on if they are set.
    """
    names = HARMLESS | {*more}
    return {
        name: value
        for name, value in os.environ.items()
        if name in names or name.startswith(PREFIXES)
    }
