"""Who may do what on which topic, written from the design (sections 3 and 10) and from nothing else.

One row a topic, one column a principal; ``p`` may publish, ``r`` receives, ``-`` neither. ``{me}`` is the principal's
own name. R9 and canary-0001 are RAEs, GR1 is the RAE of the grants, FR2 one that nobody was given. The users: u-none
never had a grant, u-read and u-command have one for S1 of GR1, u-all commands all of GR1, u-after had one that is over,
u-unknown has a certificate and the broker has not heard of him. The patterns of the acl_file are for every name that
the broker's rules for users do not hold: services and u-unknown have a RAE's rights in their own namespace, where
nobody listens (the bridge drops what is no RAE's).
"""

from tests.support.grants import S1, S2

GRANTED, FOREIGN, OTHER_USER = "GR1", "FR2", "u-other"

_TABLE = """
                       R9 canary-0001 svc-bridge svc-access svc-canary u-none u-read u-command u-all u-after u-unknown
dmp/v1/{me}/S1/info         p  p           pr         p          p          -      -      -         -     -       p
dmp/v1/{me}/rae/info        pr pr          pr         pr         pr         -      -      -         -     -       pr
dmp/v1/{me}/S1/cmd/u-other  r  r           pr         r          r          -      -      -         -     -       r
dmp/v1/{me}/S1/rsp/u-other  p  p           pr         p          p          -      -      -         -     -       p
dmp/v1/{me}/rae/ack         r  r           pr         r          r          -      -      -         -     -       r
dmp/v1/GR1/S1/info          -  -           r          -          -          -      r      r         r     -       -
dmp/v1/GR1/S2/info          -  -           r          -          -          -      -      -         r     -       -
dmp/v1/GR1/rae/info         -  -           r          -          -          -      -      -         r     -       -
dmp/v1/GR1/S1/cmd/{me}      -  -           p          -          -          -      -      p         p     -       -
dmp/v1/GR1/S1/cmd/u-other   -  -           p          -          -          -      -      -         -     -       -
dmp/v1/GR1/S2/cmd/{me}      -  -           p          -          -          -      -      -         p     -       -
dmp/v1/GR1/rae/cmd/{me}     -  -           p          -          -          -      -      -         -     -       -
dmp/v1/GR1/S1/rsp/{me}      -  -           r          -          -          -      r      r         r     -       -
dmp/v1/GR1/S1/rsp/u-other   -  -           r          -          -          -      -      -         -     -       -
dmp/v1/GR1/S2/rsp/{me}      -  -           r          -          -          -      -      -         r     -       -
dmp/v1/GR1/rae/rsp/{me}     -  -           r          -          -          -      -      -         r     -       -
dmp/v1/GR1/rae/ack          -  -           p          -          -          -      -      -         -     -       -
dmp/v1/FR2/S1/info          -  -           r          -          -          -      -      -         -     -       -
dmp/v1/FR2/rae/info         -  -           r          -          -          -      -      -         -     -       -
dmp/v1/FR2/S1/cmd/{me}      -  -           p          -          -          -      -      -         -     -       -
dmp/v1/FR2/rae/cmd/{me}     -  -           p          -          -          -      -      -         -     -       -
dmp/v1/FR2/S1/rsp/{me}      -  -           r          -          -          -      -      -         -     -       -
dmp/v1/FR2/rae/ack          -  -           p          -          -          -      -      -         -     -       -
dmp/v1/GR1/S1/ack           -  -           -          -          -          -      -      -         -     -       -
dmp/v1/GR1/S1/info/more     -  -           -          -          -          -      -      -         -     -       -
dmp/v1/GR1/S1/cmd           -  -           -          -          -          -      -      -         -     -       -
dmp/v2/GR1/S1/info          -  -           -          -          -          -      -      -         -     -       -
elsewhere                   -  -           -          -          -          -      -      -         -     -       -
$SYS/broker/version         -  -           -          -          r          -      -      -         -     -       -
$CONTROL/dynamic-security/v1          - - - p - - - - - - -
$CONTROL/dynamic-security/v1/response - - - r - - - - - - -
"""

_LINES = [line.split() for line in _TABLE.strip().splitlines()]
PRINCIPALS = _LINES[0]
UNKNOWN_TO_RULES = ("R9", "canary-0001", "svc-bridge", "svc-access", "svc-canary", "u-unknown")
"""Those whom the broker's rules for users do not hold: they may subscribe to anything, and get what is theirs."""

WIDE = (
    "#",
    "+/#",
    "dmp/#",
    "dmp/v1/#",
    "dmp/v1/+/+/info",
    "dmp/v1/+/+/rsp/+",
    "dmp/v1/+/S1/#",
    "dmp/v1/GR1/#",
    "dmp/v1/GR1/S1/#",
    "dmp/v1/GR1/S1/+",
    "dmp/v1/GR1/+/cmd/+",
    "dmp/v1/{me}/#",
    "dmp/v1/{me}/+/cmd/+",
    "$share/{me}/#",
    "$share/{me}/dmp/v1/GR1/S1/info",
    "$share/{me}/dmp/v1/+/+/info",
    "$SYS/#",
    "$CONTROL/#",
)
"""Filters that no user gets, whatever he was granted."""
BY_GRANT = {
    "u-all": ("dmp/v1/GR1/+/info", "dmp/v1/GR1/+/rsp/{me}"),
}
"""Filters with a wildcard that a grant for a whole RAE brings."""


def _named(text, me):
    levels = [{"S1": S1, "S2": S2}.get(level, level) for level in text.split("/")]
    return "/".join(levels).replace("{me}", me)


def topics(me):
    """Every topic of the table."""
    return [_named(line[0], me) for line in _LINES[1:]]


def _with(letter, me):
    column = 1 + PRINCIPALS.index(me)
    return {_named(line[0], me) for line in _LINES[1:] if letter in line[column]}


def may_publish(me):
    return _with("p", me)


def receives(me):
    return _with("r", me)


def refused_filters(me):
    """Wide ones, and every topic of the table that it does not receive."""
    wide = [_named(one, me) for one in WIDE] + [_named(one, "u-all") for one in BY_GRANT["u-all"] if me != "u-all"]
    return [*wide, *(topic for topic in topics(me) if topic not in receives(me))]


def granted_filters(me):
    return [*receives(me), *(_named(one, me) for one in BY_GRANT.get(me, ()))]


assert all(len(line) == 1 + len(PRINCIPALS) for line in _LINES[1:]), "a cell is missing"
