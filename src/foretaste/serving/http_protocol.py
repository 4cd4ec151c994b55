"""HTTP as uvicorn speaks it, with bounds on what comes before a body.

Uvicorn on httptools reads headers of any size, and waits for them as long as a connection lasts.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from foretaste.serving.limits import HEAD_BYTES, HEAD_SECONDS

_DETAIL = b'{"detail":"the request line and its headers are too large"}'
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
) % (len(_DETAIL), _DETAIL)


class BoundedProtocol(HttpToolsProtocol):
    """Refuses heads above 64 KiB (431), and ends connections that are slow to send one.

    What comes in one read is parsed before it is counted, so a head may exceed the bound by as
    much as that.
    """

    _head = 0  # bytes of a head that has not ended yet
    _in_head = True
    _moved_on = False  # whether a head or a message ended in this read
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, then count what belongs to an unfinished head."""
        self._moved_on = False
        super().data_received(data)
        if not self._in_head or self._moved_on or self.transport.is_closing():
            return
        self._expect_head()  # a blank line before a head begins none, but ends uvicorn's waiting
        self._head += len(data)
        if self._head > HEAD_BYTES:
            self.transport.write(TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head, self._head, self._moved_on = False, 0, True
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next byte belongs to another head."""
        self._in_head, self._head, self._moved_on = True, 0, True
        super().on_message_complete()

    def _expect_head(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
