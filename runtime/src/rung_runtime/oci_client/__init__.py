"""A client of the OCI distribution protocol.

https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md, tokens after
https://distribution.github.io/distribution/spec/auth/token/.

A registry decides what it answers, so that all of it has a bound: bytes, pages, redirects, seconds.
Credentials go to the registry's own origin, and to the token server that it names there, over TLS
or within this machine. What is uploaded is not sent again while nobody knows whether it arrived.
"""

from .exchange import HOST, NAME, Broken, Slow
from .remote import TAG, Remote

__all__ = ["HOST", "NAME", "TAG", "Broken", "Remote", "Slow"]
