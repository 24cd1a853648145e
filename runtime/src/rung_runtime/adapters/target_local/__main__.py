"""A supervisor or a service, as `target_local` starts them: with a role and open sockets."""

import sys

from . import serve, supervise

(supervise if sys.argv[1] == "supervise" else serve)(*map(int, sys.argv[2:]))
