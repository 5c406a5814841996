"""Which names may stand in a certificate, and of which kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmpd.model.certificates import CertificateKind, NameRefusedError, check_name, kind_of_name
from dmpd.model.principals import is_rae, principal_kind

GOOD = {
    "rae-0001": CertificateKind.RAE,
    "R1": CertificateKind.RAE,
    "A" * 64: CertificateKind.RAE,
    "u-team1": CertificateKind.USER,
    "u-team1.watch": CertificateKind.USER,
    "svc-bridge": CertificateKind.SERVICE,
    "svc-access": CertificateKind.SERVICE,
    "svc-canary": CertificateKind.SERVICE,
    "canary-0001": CertificateKind.CANARY,
}
BAD = {
    "admin": "nobody's name",
    "op-anna": "operator, who speaks with Kafka only",
    "svc-registry": "Kafka only",
    "svc-other": "no service: there are svc-access, svc-bridge, svc-canary",
    "canary-x": "canary- and 4 to 6 digits",
    "u-": "no name of a principal",
    "": "expected 1 to 64",
    "-x": "the first a letter or digit",
    "A" * 65: "expected 1 to 64",
    "rae\0-1": "no name of a principal",
    "rae 1": "no name of a principal",
    "rae/1": "no name of a principal",
    "rae+": "no name of a principal",
    "#": "no name of a principal",
    "râe": "no name of a principal",
    "$SYS": "no name of a principal",
    "rae-1\n": "no name of a principal",
}


@pytest.mark.parametrize("name", GOOD)
def test_a_name_has_one_kind_and_no_other(name):
    assert kind_of_name(name) is GOOD[name]
    for kind in CertificateKind:
        if kind is GOOD[name]:
            check_name(name, kind)
        else:
            with pytest.raises(NameRefusedError, match="is the name of"):
                check_name(name, kind)


@pytest.mark.parametrize("name", BAD)
def test_what_nobody_is_called_is_refused_with_what_was_expected(name):
    for kind in CertificateKind:
        with pytest.raises(NameRefusedError, match=BAD[name].replace(".", r"\.")):
            check_name(name, kind)


@given(st.text(max_size=70) | st.from_regex(r"(u-|svc-|op-|canary-|admin)?[A-Za-z0-9._-]{0,66}", fullmatch=True))
def test_a_certificate_for_a_client_is_for_a_principal_of_the_broker(name):
    try:
        kind = kind_of_name(name)
    except NameRefusedError:
        assert name == "admin" or principal_kind(name) is None or not is_rae(name)
        return
    assert principal_kind(name) is not None
    assert (kind in (CertificateKind.RAE, CertificateKind.CANARY)) == is_rae(name)
