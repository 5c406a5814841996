"""Vendors by MAC, from IEEE's own file and from the compact form."""

import logging

from dmpd.local_registry.sources.oui import OuiTable, is_local, load

IEEE = b"""OUI/MA-L                                                    Organization                                 \r
company_id                                                  Organization                                 \r
                                                            Address                                      \r
\r
00-22-72   (hex)\t\tAmerican Micro-Fuel Device Corp.\r
002272     (base 16)\t\tAmerican Micro-Fuel Device Corp.\r
\t\t\t\t2181 Buchanan Loop\r
\t\t\t\tFerndale  WA  98248\r
\t\t\t\tUS\r
\r
3C-12-AA   (hex)\t\tAster\r
3C12AA     (base 16)\t\tAster T\xc3\xa9l\xc3\xa9\x1b[31m\r
"""


def test_ieee_and_compact_forms_are_read():
    table = OuiTable(IEEE)
    assert len(table) == 2
    assert table.vendor_of("00:22:72:01:02:03") == "American Micro-Fuel Device Corp."
    assert table.vendor_of("3C:12:AA:ff:ff:ff") == "Aster Télé[31m"
    compact = OuiTable(b"3c12aa Aster\n002272\tMicro\n3c12aa Second\n# a remark\n12345 short\n")
    assert [compact.vendor_of(mac) for mac in ("3c:12:aa:00:00:01", "00:22:72:00:00:01")] == ["Aster", "Micro"]
    assert compact.vendor_of("00:22:73:00:00:01") is None


def test_a_made_up_mac_has_no_vendor():
    table = OuiTable(b"3e12aa Nobody\n")
    assert is_local("3e:12:aa:00:00:01")
    assert not is_local("3c:12:aa:00:00:01")
    assert table.vendor_of("3e:12:aa:00:00:01") is None


def test_what_is_no_mac_has_no_vendor():
    assert [OuiTable(IEEE).vendor_of(bad) for bad in ("", "x", "ff:ff:ff:ff:ff:ff", "00:22:72")] == [None] * 4


def test_a_missing_or_strange_file_is_an_empty_table(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        assert load(tmp_path / "none").vendor_of("00:22:72:01:02:03") is None
        assert "ieee-data" in caplog.text
        assert len(load(tmp_path)) == 0
        assert "cannot be read" in caplog.text
    (tmp_path / "oui.txt").write_bytes(IEEE)
    assert len(load(tmp_path / "oui.txt")) == 2
