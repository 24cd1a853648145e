"""Sockets that listen, for whoever serves."""

import errno
import socket

EVERYWHERE = "::"  # IPv6 and IPv4
NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def listening_socket(host: str, port: int, backlog: int) -> socket.socket:
    """Return a socket that listens to a port.

    Args:
        host: An address; `::` listens to IPv4, too, and to that alone on a machine without IPv6.

    Raises:
        OSError: The address or the port cannot be had.
    """
    if host != EVERYWHERE:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=backlog)
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
        )
    except OSError as error:
        if error.errno not in NO_IPV6:
            raise
        return socket.create_server(("0.0.0.0", port), backlog=backlog)
