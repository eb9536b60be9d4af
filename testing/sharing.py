"""One pair of servers for all processes of a test session: they ask the one that began it.

pytest imports this in every session that pytest-xdist spreads, so it stays light, and starts
nothing before somebody asks.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

ASKED_S_MAX = 5.0  # for whoever connects to say its word; answering may take minutes
CLOSED_S_MAX = 1.0
ANSWER_BYTES_MAX = 65_536


class NotShared(Exception):
    """The process that has the servers could not start them; the message says why."""


class Sharing:
    """Answers other processes of this machine; `find` is called for the first that asks.

    `address` ("port:secret") is what they need to ask. Only who knows the secret is answered: what
    was found holds passwords.
    """

    def __init__(self, find: Callable[[], dict[str, str]]) -> None:
        self._find = find
        self._answer: bytes | None = None
        self._secret = uuid4().hex.encode()
        self._closing = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._place = self._socket.getsockname()
        self.address = f"{self._place[1]}:{self._secret.decode()}"
        self._thread = threading.Thread(target=self._serve, name="runward sharing", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answers nobody any more. An answer under way is not waited for: it may take minutes."""
        self._closing = True
        socket.create_connection(self._place).close()  # wakes who accepts
        self._thread.join(CLOSED_S_MAX)

    def _serve(self) -> None:
        with self._socket:
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    if self._closing:
                        return
                    with suppress(OSError):  # it has gone, or said nothing: none of ours
                        self._serve_one(connection)

    def _serve_one(self, connection: socket.socket) -> None:
        connection.settimeout(ASKED_S_MAX)
        with connection.makefile("rb") as file:
            if file.read(len(self._secret)) == self._secret:
                connection.sendall(self._answered())

    def _answered(self) -> bytes:
        if self._answer is None:
            try:
                said = {"found": self._find()}
            except Exception as error:  # noqa: BLE001  # raised again in the processes that ask
                said = {"failed": {"why": f"{type(error).__name__}: {error}"}}
            self._answer = json.dumps(said).encode()
        return self._answer


def ask_for(address: str) -> dict[str, str]:
    """Returns what `find` returned in the process with this address. Raises NotShared."""
    port, _, secret = address.partition(":")
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        connection.sendall(secret.encode())
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            said = file.read(ANSWER_BYTES_MAX)
    if not said:
        raise NotShared("the process that began this test session does not answer")
    answer: dict[str, dict[str, str]] = json.loads(said)
    if "failed" in answer:
        raise NotShared(answer["failed"]["why"])
    return answer["found"]
