"""A model's provider on 127.0.0.1, over TLS: it answers, or hangs, or closes half; and it bills.

Each request that has arrived may be billed, answered or not: the ledger is the provider's own.
"""

from __future__ import annotations

import json
import random
import ssl
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from outage_app import ANSWER, TOOL

from runward.activities.scripted_ledger import Bill, FileLedger
from runward.contracts.usage import Usage
from runward.testing.local_server import HOST

Fault = Literal["hanging", "half_closed"]
THINKS_S = (0.05, 0.6)
BILLED_SHARE = 0.5  # of the requests that get no answer: nobody but the provider knows which
USAGE = (Usage(input=31, output=11), Usage(input=47, output=7))  # by turn


class Model(ThreadingHTTPServer):
    """Serves in a thread while it is entered; `fault` is what it plays at the moment."""

    daemon_threads = True

    def __init__(self, folder: Path, seed: int, *, bills_twice: bool = False) -> None:
        super().__init__((HOST, 0), _Call)
        self.certificate = folder / "model.pem"
        self.ledger = FileLedger(folder / "bills")
        self.bills_twice = bills_twice
        self.fault: Fault | None = None
        self.unanswered = 0
        self.over = threading.Event()  # what hangs may go
        self._rng, self._lock = random.Random(seed), threading.Lock()
        _write_certificate(self.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        # The handshake belongs to the connection's own thread.
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()

    def drawn(self, low: float, high: float) -> float:
        """Returns a number between the two; any thread may ask."""
        with self._lock:
            return self._rng.uniform(low, high)

    def bill(self, key: str, turn: int) -> None:
        """Charges one call."""
        for _ in range(2 if self.bills_twice else 1):
            self.ledger.bill(Bill(key, "double", USAGE[turn]))

    def begin(self, fault: Fault) -> None:
        """Plays the fault from now on."""
        self.over.clear()
        self.fault = fault

    def end(self) -> None:
        """Answers again; what hung is lost."""
        self.fault = None
        self.over.set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: clients that leave, and handshakes that are cut, are the play."""


class _Call(BaseHTTPRequestHandler):
    """One connection of the provider's clients."""

    protocol_version = "HTTP/1.1"
    server: Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        turn = sum(one["role"] == "assistant" for one in body["messages"])
        key = self.headers["idempotency-key"]
        model = self.server
        if model.fault is not None:
            model.unanswered += 1
            if model.drawn(0, 1) < BILLED_SHARE:
                model.bill(key, turn)
            self._leave_unanswered(model.fault)
            return
        time.sleep(model.drawn(*THINKS_S))
        model.bill(key, turn)
        self._answer(_said(body, turn))

    def _leave_unanswered(self, fault: Fault) -> None:
        self.close_connection = True
        if fault == "hanging":
            self.server.over.wait()
            return
        with suppress(OSError):
            self.connection.shutdown(1)  # we have said all; what the client says is still heard
            while self.connection.recv(4096):
                pass

    def _answer(self, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *words: Any) -> None:
        """Says nothing."""


def _said(body: dict[str, Any], turn: int) -> dict[str, Any]:
    order = body["messages"][0]["content"][0]["text"]
    blocks = (
        {"type": "tool_use", "id": "call_1", "name": TOOL, "input": {"order": order}},
        {"type": "text", "text": ANSWER},
    )
    usage = USAGE[turn]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [blocks[turn]],
        "stop_reason": ("tool_use", "end_turn")[turn],
        "stop_sequence": None,
        "usage": {"input_tokens": usage.input, "output_tokens": usage.output},
    }


def _write_certificate(path: Path) -> None:
    """Writes a key and its certificate, which clients trust who are told to trust this file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
