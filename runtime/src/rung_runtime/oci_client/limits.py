"""Bounds on what a registry answers, and how long that may take.

Seconds: a request of little content ends within TOTAL with all its retries, which is less than a
lease lasts after its last write may start: see LeaseTiming in `registry/locks.py`.
"""

CONNECT = 5.0
ANSWER = 10.0  # to a question
COMMIT = 30.0  # to an upload: object stores take their time
TOTAL = 40.0
RATE = 100_000.0  # bytes in a second: the slowest line that is waited for
RETRIES = 3
LISTING = 60.0  # for all pages of tags
# Bytes. Registries take manifests of 4 MiB at most.
MAX_JSON = 8 * 2**20
MAX_ERROR = 2**16
MAX_PAGES = 200
MAX_REDIRECTS = 5
PAGE = 1000
AGAIN = (429, 500, 502, 503, 504)
