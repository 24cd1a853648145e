"""Target `local`: a service on this machine that outlives the death of each of its processes."""

from .supervisor import running, serve, supervise
from .target import Local

__all__ = ["Local", "running", "serve", "supervise"]
