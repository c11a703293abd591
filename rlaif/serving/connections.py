"""What uvicorn leaves open: clients that send their headers slowly, endlessly or never, and too many clients."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_HEADER_BYTES = 65_536
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def guarded_protocol(*, read_timeout: float, max_connections: int) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol with limits while no request is open.

    Args:
        read_timeout: Seconds from a connection's first moment, or from the first byte after an answer, to the end of
            the headers; what arrives of a body that was refused unread counts as well.
        max_connections: One more is answered 503 and closed.
    """

    class GuardedProtocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _header_bytes = 0
        _reads_headers = True

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                self._end(_FULL)
            else:
                self._start_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._reads_headers and self._exceeds(len(data)):
                self._end(_TOO_LARGE)
            elif self.cycle is not None and not self.cycle.response_complete:
                self._stop_timer()
            elif self._timer is None:
                self._start_timer()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self._reads_headers and self.cycle.response_complete and self._timer is None:
                self._start_timer()  # part of the next request came while this one was being answered

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            self._header_bytes = 0
            self._reads_headers = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._reads_headers = False
            super().on_headers_complete()

        def _exceeds(self, more: int) -> bool:
            self._header_bytes += more
            return self._header_bytes > _MOST_HEADER_BYTES

        def _start_timer(self) -> None:
            self._timer = self.loop.call_later(read_timeout, self._end, _SLOW)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _end(self, answer: bytes) -> None:
            self._stop_timer()
            if self.transport.is_closing():
                return
            if self.cycle is None or answer is not _SLOW:  # an answered client that sends no more expects no answer
                self.transport.write(answer)
            self.transport.close()

    return GuardedProtocol
