"""Descriptions and app states in XML: honest ones, bombs, and what only looks like XML."""

import pytest

from dmpd.local_registry.sources.dial_description import (
    BODY_BYTES_MAX,
    Description,
    DialApp,
    parse_app,
    parse_description,
)

DESCRIPTION = b"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major></specVersion><device>
  <deviceType>urn:schemas-upnp-org:device:tvdevice:1</deviceType>
  <friendlyName>Living &amp; room &#x41;</friendlyName><manufacturer>Aster</manufacturer>
  <modelName>A55</modelName><UDN>uuid:1234-5678</UDN>
  <deviceList><device><friendlyName>inner</friendlyName><UDN>uuid:inner</UDN></device></deviceList>
</device></root>"""
APP = b"""<?xml version="1.0" encoding="UTF-8"?>
<service xmlns="urn:dial-multiscreen-org:schemas:dial" dialVer="2.2"><name>Netflix</name>
<options allowStop="true"/><state>running</state><link rel="run" href="run"/>
<additionalData><name>not this one</name></additionalData></service>"""

BILLION_LAUGHS = b"""<!DOCTYPE root [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">
<!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;"><!ENTITY f "&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;">]>
<root><device><friendlyName>&f;</friendlyName></device></root>"""
FILE_READER = b"""<!DOCTYPE root [<!ENTITY x SYSTEM "file:///etc/hostname">]>
<root><device><friendlyName>&x;</friendlyName></device></root>"""
HARMLESS_DTD = b"<!DOCTYPE root><root><device><friendlyName>n</friendlyName></device></root>"
DEEP = b"<root><device>" + b"<a>" * 8000 + b"</a>" * 8000 + b"</device></root>"
MANY = b"<root><device>" + b"<a/>" * 5000 + b"<friendlyName>n</friendlyName></device></root>"


def test_the_root_device_is_described():
    expected = Description(name="Living & room A", manufacturer="Aster", model="A55", udn="1234-5678")
    assert parse_description(DESCRIPTION) == expected


def test_an_embedded_device_does_not_speak_for_the_root():
    inner = DESCRIPTION.replace(b"<friendlyName>Living &amp; room &#x41;</friendlyName>", b"")
    found = parse_description(inner)
    assert (found.name, found.udn) == (None, "1234-5678")


def test_prefixed_names_and_other_encodings_are_read():
    prefixed = b'<u:root xmlns:u="x"><u:device><u:modelName>M</u:modelName></u:device></u:root>'
    assert parse_description(prefixed) == Description(model="M")
    latin = '<?xml version="1.0" encoding="ISO-8859-1"?><root><device><modelName>é</modelName></device></root>'
    assert parse_description(latin.encode("latin-1")) == Description(model="é")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"not xml",
        b"<root><device>",
        b"<root/>",
        BILLION_LAUGHS,
        FILE_READER,
        HARMLESS_DTD,
        DEEP,
        MANY,
        b'<?xml version="1.0" encoding="nonsense"?><root/>',
        b'<?xml version="1.0" encoding="idna"?><root/>',
        b"<html><body>hello</body></html>",
        b"<root><device><friendlyName>&undefined;</friendlyName></device></root>",
        DESCRIPTION + b" " * BODY_BYTES_MAX,
    ],
    ids=range(14),
)
def test_what_is_no_description_or_dangerous_is_none(bad):
    assert parse_description(bad) is None
    assert parse_app(bad) is None


def test_texts_are_cut_and_cleaned():
    long = b"<root><device><modelName>" + b"\xe2\x80\xae" + b"m" * 60_000 + b"</modelName></device></root>"
    assert parse_description(long) == Description(model="m" * 256)


def test_an_app_is_read():
    assert parse_app(APP) == DialApp(name="Netflix", state="running", stoppable=True)
    assert parse_app(APP.replace(b"true", b"false")).stoppable is False
    installable = APP.replace(b"running", b"installable=http://10.0.0.1/")
    assert parse_app(installable).state == "installable"
    assert parse_app(APP.replace(b"running", b"exploding")) is None
