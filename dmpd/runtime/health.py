"""What a daemon tells of itself over HTTP, ``/healthz /readyz /metrics /status``, and what it is asked to do by POST.

On a TCP port or a unix socket. Served by a thread of its own, so that it answers while the daemon's loop is busy;
``fetch`` is the other side.
"""

import contextlib
import http.client
import http.server
import ipaddress
import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from dmpd.runtime import metrics
from dmpd.runtime.config import ConfigError
from dmpd.runtime.errors import BindError
from dmpd.runtime.flock import AlreadyRunningError, InstanceLock
from dmpd.runtime.lifecycle import Lifecycle

_UNIX: Final = "unix:"

_PORT_MAX: Final = 65_535
_PORT_DIGITS: Final = 5

_BODY_BYTES_MAX: Final = 64 * 1024
_DISCARD_BYTES_MAX: Final = 1 << 20
_JSON: Final = "application/json"

_log = logging.getLogger(__name__)

Status = Callable[[], Mapping[str, Any]]
Action = Callable[[Mapping[str, Any]], Any]
"""Does something with the arguments of a POST, on the server's thread, and returns what is answered as JSON. May block
for some seconds. Raises ``ActionRefusedError``."""


class ActionRefusedError(Exception):
    """An action is not done; ``code`` is HTTP's, the text says why and what to do."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence


def parse_bind(text: str) -> Path | tuple[str, int]:
    """The socket's path of ``unix:/path``, or host and port of ``host:port``. Raises ``BindError``."""
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path or "\0" in path:
            raise BindError(f"expected unix:/path, got {text!r}")
        return Path(path)
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and len(port) <= _PORT_DIGITS and int(port) <= _PORT_MAX):
        raise BindError(f"expected host:port (0 to {_PORT_MAX}) or unix:/path, got {text!r}")
    return host, int(port)


class HealthServer:
    """Answers from ``start`` to ``stop``. ``status`` is called on the server's thread: it only reads.

    ``/healthz`` is 200 while the process lives and is not stopped; ``/readyz`` is 200 when ready or degraded (it works,
    something it needs is away), else 503. Both bodies say the state and, degraded, why.

    Who listens at a unix socket holds ``{socket}.lock``, so that nobody takes it away from one that lives: a second
    daemon with the same configuration ends with a sentence instead of working beside the first.

    POST ``/drain`` is what TERM is, ``/reload`` what HUP is; ``actions`` are further ones. They are for who may log in
    here: on a unix socket, whose mode says who that is, or to a loopback peer; and never for a page in somebody's
    browser, which cannot send ``Content-Type: application/json`` to another host than its own, nor name us as its host.
    """

    def __init__(
        self,
        bind: str,
        lifecycle: Lifecycle,
        status: Status,
        *,
        actions: Mapping[str, Action] | None = None,
        alarm: Callable[[], str | None] = lambda: None,
    ) -> None:
        """``bind``: ``host:port`` (port 0 = a free one) or ``unix:/path``, made with mode 0660.

        ``alarm``: a sentence while ``/readyz`` shall be 503 though the daemon itself is well; only reads.

        Raises:
            BindError: Nobody can listen there, or somebody does already.
        """
        self._actions: Mapping[str, Action] = {
            "/drain": self._drain,
            "/reload": self._reload,
        } | dict(actions or {})
        self._lifecycle = lifecycle
        self._status = status
        self._alarm = alarm
        self._started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._lock: InstanceLock | None = None
        server = self

        class Handler(_Handler):
            def answer(self, path: str) -> tuple[int, str, bytes]:
                return server._answer(path)

            def act(self, path: str, arguments: Mapping[str, Any]) -> tuple[int, str, bytes]:
                return server._act(path, arguments)

        where = parse_bind(bind)
        self._unix_path = where if isinstance(where, Path) else None
        self._server: socketserver.BaseServer
        try:
            if isinstance(where, Path):
                self._lock = InstanceLock(where.with_name(f"{where.name}.lock"))
                self._server = _unix_server(where, Handler)
                self.address = bind
            else:
                self._server = _TcpServer(where, Handler)
                self.address = f"{where[0]}:{self._server.server_address[1]}"
        except AlreadyRunningError as error:
            raise BindError(f"cannot listen at {bind}: {error}") from error
        except (OSError, UnicodeError) as error:  # a host's name that is too long is a UnicodeError
            raise BindError(f"cannot listen at {bind}: {getattr(error, 'strerror', None) or error}") from error
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
        if self._lock is not None:
            self._lock.release()

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        state, reason = self._lifecycle.state, self._lifecycle.reason
        line = f"{state}{f': {reason}' if reason else ''}\n".encode()
        if path == "/healthz":
            return (200 if state != "stopped" else 503), "text/plain", line
        if path == "/readyz":
            alarm = self._alarm()
            if alarm is not None:
                return 503, "text/plain", f"alarm: {alarm}\n".encode()
            return (200 if state in ("ready", "degraded") else 503), "text/plain", line
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4", metrics.render()
        if path == "/status":
            return (
                200,
                _JSON,
                orjson.dumps({**self._introduction(), "state": state, "reason": reason, **self._status()}),
            )
        return 404, "text/plain", b"/healthz /readyz /metrics /status\n"

    def _introduction(self) -> dict[str, Any]:
        """Who answers: ``started_at`` differs after a reload, ``pid`` does not."""
        return {"program": self._lifecycle.program, "pid": os.getpid(), "started_at": self._started_at}

    def _act(self, path: str, arguments: Mapping[str, Any]) -> tuple[int, str, bytes]:
        action = self._actions.get(path)
        if action is None:
            return _refused(404, f"there are: POST {' '.join(sorted(self._actions))}")
        try:
            answer = action(arguments)
        except ActionRefusedError as refusal:
            return _refused(refusal.code, refusal.sentence)
        return (202 if path in ("/drain", "/reload") else 200), _JSON, msgspec.json.encode(answer)

    def _drain(self, arguments: Mapping[str, Any]) -> Any:
        _log.info("asked to drain by an operator")
        self._lifecycle.request_stop_from_thread()
        return {"said": "draining"}

    def _reload(self, arguments: Mapping[str, Any]) -> Any:
        try:
            self._lifecycle.reload()
        except ConfigError as error:
            _log.error("not reloaded, it goes on with what it has: %s", "; ".join(error.problems))
            raise ActionRefusedError(422, str(error)) from error
        return {"said": "draining, then beginning anew"}


def _refused(code: int, sentence: str) -> tuple[int, str, bytes]:
    return code, _JSON, orjson.dumps({"error": sentence})


def fetch(
    bind: str,
    path: str,
    *,
    method: str = "GET",
    arguments: Mapping[str, Any] | None = None,
    timeout_s: float = 2.0,
) -> tuple[int, bytes]:
    """Ask the daemon at ``bind``; POST has it do something with ``arguments``. Blocks up to ``timeout_s``.

    Raises:
        OSError: Nobody answers there.
    """
    connection: http.client.HTTPConnection
    if bind.startswith(_UNIX):
        connection = _UnixConnection(bind.removeprefix(_UNIX), timeout_s)
    else:
        connection = http.client.HTTPConnection(bind, timeout=timeout_s)
    body = orjson.dumps(dict(arguments or {})) if method == "POST" else None
    with contextlib.closing(connection):
        try:
            connection.request(method, path, body, {"Content-Type": _JSON} if body is not None else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"{bind}{path}: {error!r}") from error


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 5.0
    """A client that says nothing holds its thread no longer."""

    def answer(self, path: str) -> tuple[int, str, bytes]:
        raise AssertionError(path)

    def act(self, path: str, arguments: Mapping[str, Any]) -> tuple[int, str, bytes]:
        raise AssertionError(path)

    def do_GET(self) -> None:
        self._reply(lambda: self.answer(self.path))

    def do_POST(self) -> None:
        self._reply(self._asked)

    def _asked(self) -> tuple[int, str, bytes]:
        try:
            body = self._body()  # also of who is refused: one that still sends would find the door shut, not the answer
            self._check_asker()
            arguments = _arguments_in(body)
        except ActionRefusedError as refusal:
            _log.warning("POST %s refused: %s", self.path, refusal.sentence)
            return _refused(refusal.code, refusal.sentence)
        return self.act(self.path, arguments)

    def _check_asker(self) -> None:
        """Raises ``ActionRefusedError``: not from this machine, or maybe a browser's page."""
        if isinstance(self.client_address, tuple) and not _is_loopback(self.client_address[0]):
            raise ActionRefusedError(403, "only from this machine: run dmpctl where the daemon runs")
        if self.headers.get_content_type() != _JSON:
            raise ActionRefusedError(415, "expected Content-Type: application/json")
        host = _host_of(self.headers.get("Host", "localhost"))
        if host != "localhost" and not _is_loopback(host):
            raise ActionRefusedError(403, f"expected localhost or 127.0.0.1 as Host, got {host}")

    def _body(self) -> bytes:
        """What the asker sends, up to the limit. Raises ``ActionRefusedError``."""
        length = self.headers.get("Content-Length", "0")
        is_number = length.isascii() and length.isdigit() and len(length) < 20
        if not is_number or int(length) > _BODY_BYTES_MAX:
            self._discard(int(length) if is_number else 0)
            raise ActionRefusedError(413, f"expected Content-Length up to {_BODY_BYTES_MAX}, got {length[:20]}")
        return self.rfile.read(int(length))

    def _discard(self, length: int) -> None:
        left = min(length, _DISCARD_BYTES_MAX)
        while left > 0:
            piece = self.rfile.read(min(left, _BODY_BYTES_MAX))
            if not piece:
                return
            left -= len(piece)

    def _reply(self, answer: Callable[[], tuple[int, str, bytes]]) -> None:
        try:
            code, content_type, body = answer()
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


def _arguments_in(body: bytes) -> Mapping[str, Any]:
    """The body, a JSON object; none is an empty one. Raises ``ActionRefusedError``."""
    try:
        arguments = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise ActionRefusedError(400, f"the body is no JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise ActionRefusedError(400, "expected a JSON object as body")
    return arguments


def _host_of(header: str) -> str:
    """``host`` of ``host:port``; an IPv6 address without its brackets."""
    return header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


class _TcpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 16


def _unix_server(path: Path, handler: type[_Handler]) -> _UnixServer:
    """In place of a socket that a former process left; nothing but a socket is removed. Raises ``OSError``."""
    if path.is_socket():
        path.unlink(missing_ok=True)
    server = _UnixServer(str(path), handler)
    path.chmod(0o660)
    return server


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
