"""A way to a server on which what comes back can be lost, as on a network."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.servers import free_port

_BYTES = 2**16


class Way:
    """Passes everything on, until it is told not to. In threads of its own."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self._to = port
        self._lose: bytes | None = None
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._run(self._accept, self._listener)

    def cut(self) -> None:
        """Nothing comes through any more, either way."""
        assert self._listener is not None
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads.pop(0).join()  # who accepts: after this nothing is opened
        self._listener.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._open:
            each.close()
        self._open.clear()
        self._threads.clear()

    def lose_the_answer_to(self, words: bytes) -> None:
        """Once: what has these words in it arrives, and the connection is lost when it is answered."""
        self._lose = words

    def _run(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(("127.0.0.1", self._to))
                self._open += (here, there)
                lost = threading.Event()
                self._run(self._pass_on, here, there, lost)
                self._run(self._pass_back, there, here, lost)

    def _pass_on(self, here: socket.socket, there: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := here.recv(_BYTES):
                if self._lose is not None and self._lose in data:
                    self._lose = None
                    lost.set()
                there.sendall(data)
        _shut(here, there)

    @staticmethod
    def _pass_back(there: socket.socket, here: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while (data := there.recv(_BYTES)) and not lost.is_set():
                here.sendall(data)
        _shut(here, there)


def _shut(*ends: socket.socket) -> None:
    for each in ends:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def way_to(port: int) -> Iterator[Way]:
    found = Way(port)
    found.start()
    try:
        yield found
    finally:
        found.cut()
