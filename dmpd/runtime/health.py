"""What a daemon tells of itself over HTTP: ``/healthz /readyz /metrics /status``, on a TCP port or a unix socket.

Served by a thread of its own, so that it answers while the daemon's loop is busy; ``fetch`` is the other side.
"""

import contextlib
import http.client
import http.server
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from dmpd.runtime import metrics
from dmpd.runtime.lifecycle import Lifecycle

_UNIX: Final = "unix:"

_log = logging.getLogger(__name__)

Status = Callable[[], Mapping[str, Any]]


class HealthServer:
    """Answers from ``start`` to ``stop``. ``status`` is called on the server's thread: it only reads.

    ``/healthz`` is 200 while the process lives and is not stopped; ``/readyz`` is 200 when ready or degraded (it works,
    something it needs is away), else 503. Both bodies say the state and, degraded, why.
    """

    def __init__(self, bind: str, lifecycle: Lifecycle, status: Status) -> None:
        """``bind``: ``host:port`` (port 0 = a free one) or ``unix:/path``, made with mode 0660."""
        self._lifecycle = lifecycle
        self._status = status
        server = self

        class Handler(_Handler):
            def answer(self, path: str) -> tuple[int, str, bytes]:
                return server._answer(path)

        self._unix_path = Path(bind.removeprefix(_UNIX)) if bind.startswith(_UNIX) else None
        self._server: socketserver.BaseServer
        if self._unix_path is not None:
            self._unix_path.unlink(missing_ok=True)
            self._server = _UnixServer(str(self._unix_path), Handler)
            self._unix_path.chmod(0o660)
            self.address = bind
        else:
            host, _, port = bind.rpartition(":")
            self._server = _TcpServer((host, int(port)), Handler)
            self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; waits for the thread, 0.1 s at most."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._unix_path is not None:
            self._unix_path.unlink(missing_ok=True)

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        state, reason = self._lifecycle.state, self._lifecycle.reason
        line = f"{state}{f': {reason}' if reason else ''}\n".encode()
        if path == "/healthz":
            return (200 if state != "stopped" else 503), "text/plain", line
        if path == "/readyz":
            return (200 if state in ("ready", "degraded") else 503), "text/plain", line
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4", metrics.render()
        if path == "/status":
            body = {"program": self._lifecycle.program, "state": state, "reason": reason, **self._status()}
            return 200, "application/json", orjson.dumps(body)
        return 404, "text/plain", b"/healthz /readyz /metrics /status\n"


def fetch(bind: str, path: str, *, timeout_s: float = 2.0) -> tuple[int, bytes]:
    """Ask the daemon at ``bind``. Blocks up to ``timeout_s``.

    Raises:
        OSError: Nobody answers there.
    """
    connection: http.client.HTTPConnection
    if bind.startswith(_UNIX):
        connection = _UnixConnection(bind.removeprefix(_UNIX), timeout_s)
    else:
        connection = http.client.HTTPConnection(bind, timeout=timeout_s)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"{bind}{path}: {error!r}") from error


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 5.0
    """A client that says nothing holds its thread no longer."""

    def answer(self, path: str) -> tuple[int, str, bytes]:
        raise AssertionError(path)

    def do_GET(self) -> None:
        try:
            code, content_type, body = self.answer(self.path)
        except Exception:  # whatever it is, the asker gets an answer and the log the trace
            _log.exception("answering %s", self.path)
            code, content_type, body = 500, "text/plain", b"see the log\n"
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "health"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        _log.debug(format, *args)


class _TcpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 16


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.settimeout(self.timeout)
        try:
            found.connect(self._path)
        except OSError:
            found.close()
            raise
        self.sock = found
