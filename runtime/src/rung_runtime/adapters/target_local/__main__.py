"""A supervisor or a service, as `start_process` starts them: with a role and open sockets."""

import sys

from . import serve, supervise

role = sys.argv[1]
arguments = [int(argument) for argument in sys.argv[2:]]
if role == "supervise":
    supervise(*arguments)
else:
    serve(*arguments)
