"""Reading bodies: as long as one, those of a caller, and all together are not too large."""

import asyncio
import zlib
from collections import Counter
from typing import NoReturn

from starlette.types import Receive

from .rows import RequestError

BODIES_IN_MEMORY = 8  # of the greatest size, all requests together
UNCOUNTED_BYTES = 65_536  # of each body: whoever sends a few rows is never in the way of others
SHARE_OF_CALLER = 2  # a caller may have 1/2 of what all may
GZIP = 31  # window bits of zlib: a header and a checksum of gzip


class BodyReader:
    """Reads bodies, and counts what is in memory of those that are not read to their end.

    Attributes:
        bytes_in_memory: Of all bodies, beyond the first bytes of each.
        by_client: The same, of each caller.
    """

    def __init__(self, max_megabytes: float) -> None:
        self.max_megabytes = max_megabytes
        self.max_bytes = int(max_megabytes * 1e6)
        self.bytes_in_memory = 0
        self.by_client: Counter[str] = Counter()
        self.inflating = asyncio.Semaphore(1)

    async def read(self, receive: Receive, encoding: str, length: str, client: str) -> bytes:
        """Return the body of a request, without its encoding.

        Args:
            encoding: The header Content-Encoding; "" if there is none.
            length: The header Content-Length; likewise.

        Raises:
            RequestError: It is too large (413), its encoding is not known (415), others are being
                sent (503), or its caller has gone.
        """
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise RequestError.for_request("a content encoding other than gzip", 415)
        if length.isdigit() and int(length) > self.max_bytes:
            self._refuse()
        body = bytearray()
        counted = 0
        is_whole = False
        try:
            while not is_whole:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestError.for_request("the caller has gone", 400)
                body += message.get("body", b"")
                is_whole = not message.get("more_body", False)
                if len(body) > self.max_bytes:
                    self._refuse()
                more = max(0, len(body) - UNCOUNTED_BYTES) - counted
                if more:
                    counted += more
                    self.bytes_in_memory += more
                    self.by_client[client] += more
                    self._check_memory(client)
        finally:
            if counted:
                self.bytes_in_memory -= counted
                self.by_client[client] -= counted
                if not self.by_client[client]:
                    del self.by_client[client]
        return await self._inflate(bytes(body)) if encoding.endswith("gzip") else bytes(body)

    def _check_memory(self, client: str) -> None:
        most = BODIES_IN_MEMORY * self.max_bytes
        is_full = self.bytes_in_memory > most
        if is_full or self.by_client[client] > max(self.max_bytes, most // SHARE_OF_CALLER):
            raise RequestError.for_request("too much is being sent: try again later", 503)

    async def _inflate(self, body: bytes) -> bytes:
        """Return what a body of gzip holds.

        Raises:
            RequestError: It is not gzip, or holds too much.
        """
        stream = zlib.decompressobj(GZIP)
        try:
            content = stream.decompress(body, UNCOUNTED_BYTES)
            if stream.unconsumed_tail:
                # In a thread, which zlib lets run beside the event loop; one at a time, as each
                # takes memory that its caller did not send.
                async with self.inflating:
                    most = self.max_bytes + 1 - len(content)
                    rest = stream.unconsumed_tail
                    content += await asyncio.to_thread(stream.decompress, rest, max(most, 1))
        except zlib.error:
            raise RequestError.for_request("not gzip, which its header says it is") from None
        if len(content) > self.max_bytes:
            self._refuse()
        if not stream.eof or stream.unused_data:
            raise RequestError.for_request("not one whole stream of gzip")
        return content

    def _refuse(self) -> NoReturn:
        megabytes = f"{self.max_megabytes:g} MB"
        raise RequestError.for_request(f"more than {megabytes}, send the rows in parts", 413)
