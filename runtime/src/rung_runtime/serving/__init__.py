"""The service: `POST /predict`, the Open Inference Protocol, and what operations need.

The event loop reads requests and writes responses; one thread predicts (`batcher`), one writes the
prediction log, and one watches for another model to serve (`desired`).
"""

from .app import create_app, main, serve
from .parity import check_parity

__all__ = ["check_parity", "create_app", "main", "serve"]
