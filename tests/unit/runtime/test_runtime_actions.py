"""What a daemon is asked to do by POST, and by whom it lets itself be asked."""

import contextlib
import http.client
import json
import os
import select
import signal
import socket

import pytest

from dmpd.runtime import health
from dmpd.runtime.health import ActionRefusedError, HealthServer
from dmpd.runtime.lifecycle import Lifecycle

JSON_HEADER = {"Content_Type": "application/json"}


def add(arguments):
    if "a" not in arguments:
        raise ActionRefusedError(400, "say a")
    return {"sum": arguments["a"] + arguments["b"]}


@pytest.fixture
def lifecycle():
    """With its signals: a drain comes as TERM."""
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    lifecycle = Lifecycle("test")
    lifecycle.install_signals()
    yield lifecycle
    os.close(signal.set_wakeup_fd(-1))
    os.close(lifecycle.wakeup_fd)
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.fixture(params=["tcp", "unix"])
def bind(request, tmp_path):
    return "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path / 'h.sock'}"


@pytest.fixture
def server(bind, lifecycle):
    server = HealthServer(bind, lifecycle, dict, actions={"/add": add})
    server.start()
    yield server
    server.stop()


def post(server, path="/add", body=b'{"a": 1, "b": 2}', **headers):
    """As any client would: only the headers given, names with ``_`` for ``-``."""
    bind = server.address
    if bind.startswith("unix:"):
        connection = health._UnixConnection(bind.removeprefix("unix:"), 5.0)
    else:
        connection = http.client.HTTPConnection(bind, timeout=5.0)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def connected(bind):
    asker = socket.socket(socket.AF_UNIX if bind.startswith("unix:") else socket.AF_INET)
    asker.settimeout(30)
    host, _, port = bind.rpartition(":")
    asker.connect(bind.removeprefix("unix:") if bind.startswith("unix:") else (host, int(port)))
    return asker


def test_an_action_gets_its_arguments_and_answers(server):
    code, body = health.fetch(server.address, "/add", method="POST", arguments={"a": 1, "b": 2})
    assert (code, json.loads(body)) == (200, {"sum": 3})


def test_a_refusal_is_its_code_and_its_sentence(server):
    assert post(server, body=b"{}", **JSON_HEADER) == (400, {"error": "say a"})
    assert post(server, "/nothing", **JSON_HEADER) == (404, {"error": "there are: POST /add /drain /reload"})


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_a_page_in_a_browser_can_send_is_refused(server, kind):
    headers = {} if kind is None else {"Content_Type": kind}
    code, answer = post(server, **headers)
    assert (code, answer) == (415, {"error": "expected Content-Type: application/json"})


def test_a_name_that_was_made_to_point_to_us_is_refused(server):
    code, answer = post(server, Host="evil.example:9102", **JSON_HEADER)
    assert (code, answer) == (403, {"error": "expected localhost or 127.0.0.1 as Host, got evil.example"})
    for host in ("localhost:9102", "127.0.0.1", "[::1]:9102"):
        assert post(server, Host=host, **JSON_HEADER)[0] == 200


@pytest.mark.parametrize(
    ("head", "length", "code"), [(b"Host: evil.example\r\n", 9, b"403"), (b"", 1 << 20, b"413"), (b"", 9, b"415")]
)
def test_who_is_refused_while_he_still_sends_gets_the_answer(server, head, length, code):
    """A server that answers and closes before the body came breaks the asker's pipe: the answer is never read."""
    json_header = b"" if code == b"415" else b"Content-Type: application/json\r\n"
    with connected(server.address) as asker:
        asker.sendall(b"POST /add HTTP/1.0\r\n%s%sContent-Length: %d\r\n\r\n" % (head, json_header, length))
        assert select.select([asker], [], [], 0.5)[0] == []
        asker.sendall(b" " * length)
        assert asker.makefile("rb").readline().split()[1] == code


@pytest.mark.parametrize("bind", ["127.0.0.1:0"])
def test_another_machine_is_refused(server, monkeypatch):
    accept = server._server.get_request
    for peer, allowed in (("192.0.2.7", False), ("::ffff:192.0.2.7", False), ("127.0.0.9", True), ("::1", True)):
        monkeypatch.setattr(server._server, "get_request", lambda peer=peer: (accept()[0], (peer, 4242)))
        code, answer = post(server, **JSON_HEADER)
        assert (code == 200) == allowed
        assert allowed or (code, answer) == (403, {"error": "only from this machine: run dmpctl where the daemon runs"})
        assert health.fetch(server.address, "/healthz")[0] == 200  # reading is for all


@pytest.mark.parametrize(
    ("body", "sentence"),
    [(b"[1]", "expected a JSON object as body"), (b"{", "the body is no JSON: "), (b"{}" + b" " * (64 << 10), "up to")],
)
def test_a_body_that_is_no_object_or_too_large_is_refused(server, body, sentence):
    code, answer = post(server, body=body, **JSON_HEADER)
    assert 400 <= code < 500
    assert sentence in answer["error"]


def test_drain_is_term_and_never_the_second_one(server, lifecycle):
    for _ in range(3):
        code, body = health.fetch(server.address, "/drain", method="POST")
        assert (code, json.loads(body)) == (202, {"said": "draining"})
    assert lifecycle.stops == 1
