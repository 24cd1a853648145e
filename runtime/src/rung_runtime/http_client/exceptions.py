"""Why there is no response.

NoResponse             an OSError; what was sent may have arrived
├── NotConnected       nothing was sent, so that sending it again is safe
└── TimedOut           no response in time
ResponseTooLarge       a ValueError
Unencrypted            a ValueError: credentials would travel in clear
"""


class NoResponse(OSError):
    """No response arrived; the message is the reason."""


class NotConnected(NoResponse):
    """There is no connection: nothing was sent."""


class TimedOut(NoResponse):
    """No response arrived in time: what was sent may have arrived."""


class ResponseTooLarge(ValueError):
    """The response has more bytes than are read."""


class Unencrypted(ValueError):
    """Credentials would be sent for anybody on the way to read."""
