"""The service: `POST /predict`, the Open Inference Protocol, and what operations need.

The event loop reads requests, writes responses, and answers small requests itself while the model
is quick; one thread predicts everything else (`batcher`), one writes the prediction log, and one
watches for another model to serve (`desired`). What callers may send, and
how long they may take, is bounded before a route sees it (`connections`, `body`, `front`).
"""

from typing import TYPE_CHECKING, Any

from .main import main

if TYPE_CHECKING:
    from .app import create_app, serve
    from .parity import check_parity

__all__ = ["check_parity", "create_app", "main", "serve"]


def __getattr__(name: str) -> Any:
    """Import the rest when it is asked for: `main` must not wait for it."""
    if name == "check_parity":
        from .parity import check_parity

        return check_parity
    if name in ("create_app", "serve"):
        from . import app

        return getattr(app, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
