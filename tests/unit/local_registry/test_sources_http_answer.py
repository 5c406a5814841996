"""URLs that may be asked for at all, and answers that are whole."""

import pytest

from dmpd.local_registry.sources.http_answer import Answer, Location, is_complete, parse_answer, parse_location, request


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("http://10.77.1.9:9080", Location(ip="10.77.1.9", port=9080)),
        ("http://10.77.1.9/dd.xml?x=1#part", Location(ip="10.77.1.9", path="/dd.xml?x=1")),
        ("HTTP://10.77.1.9:80/", Location(ip="10.77.1.9")),
    ],
)
def test_a_plain_url_with_an_address_is_taken(url, location):
    assert parse_location(url) == location


@pytest.mark.parametrize(
    "url",
    [
        "https://10.77.1.9/",
        "file:///etc/passwd",
        "http://router/",
        "http://10.77.1.9.example.net/",
        "http://user@10.77.1.9/",
        "http://10.77.1.9@10.77.0.1/",
        "http://10.77.1.9:0/",
        "http://10.77.1.9:65536/",
        "http://10.77.1.999/",
        "http://010.077.001.009/",
        "http://0x0a4d0109/",
        "http://172949769/",
        "http://[fe80::1]/",
        "http://10.77.1.9\\@10.77.0.1/",
        "http://10.77.1.9/a b",
        "http://10.77.1.9/\r\nHost: x",
        "http://10.77.1.9?x",
        "//10.77.1.9/",
        "",
    ],
)
def test_anything_else_is_not(url):
    assert parse_location(url) is None


def test_the_question_names_the_address_and_asks_for_one_answer():
    assert request(Location(ip="10.77.1.9", port=81, path="/d")).startswith(
        b"GET /d HTTP/1.0\r\nHost: 10.77.1.9:81\r\n"
    )


CASES = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nApplication-URL: u\r\n\r\nhi", b"hi"),
    "until the end": (b"HTTP/1.0 200 OK\r\n\r\nhi", b"hi"),
    "more than said": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi, and more", b"hi"),
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", None),
    "no separator": (b"HTTP/1.1 200 OK\r\n", None),
    "cut off": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", None),
    "length of nonsense": (b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi", None),
    "too large": (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101, None),
    "no HTTP": (b"SSH-2.0-x\r\n\r\nhi", None),
    "endless head": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9000 + b"\r\n\r\nhi", None),
}


@pytest.mark.parametrize("name", CASES)
def test_answers(name):
    received, body = CASES[name]
    found = parse_answer(received, body_bytes_max=100)
    assert (None if found is None else found.body) == body


def test_status_and_headers_are_told():
    found = parse_answer(CASES["length"][0], body_bytes_max=100)
    assert found == Answer(status=200, headers={"content-length": "2", "application-url": "u"}, body=b"hi")


def test_an_answer_is_complete_when_its_body_is():
    received = CASES["length"][0]
    assert is_complete(received)
    assert not any(is_complete(received[:end]) for end in range(len(received)))
    assert not is_complete(CASES["until the end"][0])
