"""Rules in the words of Mosquitto's dynamic security plugin (2.0.11), and back. Pure.

A rule is a role ``g-<grant>`` whose description says when it ends: so a daemon that starts while the database is away
still knows. Every user holds the role ``user`` too, whose denials lie below all rules: without it the ``%u`` patterns
of the acl_file would make him a RAE of his own name, and he could subscribe to ``#``.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from dmpd.access.broker import Change, DropRule, DropUser, PutBase, PutRule, PutUser
from dmpd.model.grants import Rule
from dmpd.model.principals import is_rae
from dmpd.model.topics import RAE_SESSION, cmd_topic, info_topic, rsp_topic

BASE_ROLE: Final = "user"
ROLE_PREFIX: Final = "g-"
ANY_SESSION: Final = "+"

_BASE_PRIORITY: Final = -1
_WHOLE_PRIORITY: Final = 1
"""Of a rule for a whole RAE, which denies some commands."""
_RULE_PRIORITY: Final = 2
"""Of a rule for one session, which denies nothing: what it allows counts, whatever the other one denies."""
_LISTED_PRIORITY: Final = -1
"""What the plugin means when it lists a role of a client without a priority."""
_ENDS_AT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
_INFO: Final = re.compile(r"dmp/v1/([^/]+)/([^/]+)/info")
_RSP: Final = re.compile(r"dmp/v1/[^/]+/[^/]+/rsp/([^/]+)")
_CMD: Final = re.compile(r"dmp/v1/[^/]+/([^/]+)/cmd/[^/]+")


class Acl(NamedTuple):
    """One line of a role. The line with the highest priority that matches decides."""

    acltype: str
    topic: str
    priority: int
    allow: bool


DEFAULTS: Final = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
"""The plugin's defaults for what no line decides: all denied, as they are in a file that it makes itself."""

BASE_ACLS: Final = tuple(
    Acl(acltype, "#", -1, allow=False) for acltype in ("publishClientSend", "publishClientReceive", "subscribePattern")
)


def role_name(grant: str) -> str:
    return ROLE_PREFIX + grant


def acls(rule: Rule) -> list[Acl]:
    """What the role of ``rule`` allows, and what it takes out of that again."""
    session = rule.session or ANY_SESSION
    subscribe = "subscribeLiteral" if rule.session else "subscribePattern"
    heard = (info_topic(rule.rae, session), rsp_topic(rule.rae, session, rule.user))
    found = [Acl(kind, topic, 0, allow=True) for topic in heard for kind in ("publishClientReceive", subscribe)]
    if rule.command:
        found.append(Acl("publishClientSend", cmd_topic(rule.rae, session, rule.user), 0, allow=True))
        if rule.session is None:
            found += [
                Acl("publishClientSend", cmd_topic(rule.rae, one, rule.user), 1, allow=False)
                for one in (RAE_SESSION, *rule.suspended)
            ]
    return found


def command(change: Change) -> dict[str, Any]:
    """``change`` as one command of the plugin."""
    match change:
        case PutBase():
            return {"command": "createRole", "rolename": BASE_ROLE, "acls": _as_json(BASE_ACLS)}
        case PutRule(rule=rule, exists=exists):
            return {
                "command": "modifyRole" if exists else "createRole",
                "rolename": role_name(rule.grant),
                "textdescription": rule.ends_at.astimezone(UTC).strftime(_ENDS_AT),
                "acls": _as_json(acls(rule)),
            }
        case DropRule(name=name):
            return {"command": "deleteRole", "rolename": role_name_of(name)}
        case PutUser(user=user, rules=rules, exists=exists, whole=whole):
            return {
                "command": "modifyClient" if exists else "createClient",
                "username": user,
                "roles": [
                    {"rolename": BASE_ROLE, "priority": _BASE_PRIORITY},
                    *({"rolename": role_name_of(name), "priority": _priority(name in whole)} for name in rules),
                ],
            }
        case DropUser(name=name):
            return {"command": "deleteClient", "username": name}


def rule_name(role: str) -> str:
    """The name under which access knows the role: the grant's id, or for a foreign one ``role:`` and its own name."""
    return role.removeprefix(ROLE_PREFIX) if _is_ours(role) else f"role:{role}"


def role_name_of(name: str) -> str:
    """The role of ``rule_name``."""
    return name.removeprefix("role:") if name.startswith("role:") else role_name(name)


def rule_of(role: Mapping[str, Any]) -> Rule | None:
    """The rule that a listed role is; ``None`` if it is none that we would have made."""
    lines = _listed_acls(role)
    try:
        ends_at = datetime.strptime(role.get("textdescription", ""), _ENDS_AT).replace(tzinfo=UTC)
    except (ValueError, TypeError):
        return None
    scope = next((_INFO.fullmatch(line.topic) for line in lines if _INFO.fullmatch(line.topic)), None)
    user = next((_RSP.fullmatch(line.topic) for line in lines if _RSP.fullmatch(line.topic)), None)
    if not _is_ours(role["rolename"]) or scope is None or user is None or not is_rae(scope[1]):
        return None
    denied = {found[1] for line in lines if not line.allow and (found := _CMD.fullmatch(line.topic))}
    rule = Rule(
        grant=rule_name(role["rolename"]),
        user=user[1],
        rae=scope[1],
        session=None if scope[2] == ANY_SESSION else scope[2],
        ends_at=ends_at,
        command=any(line.allow and _CMD.fullmatch(line.topic) for line in lines),
        suspended=tuple(sorted(denied - {RAE_SESSION})),
    )
    return rule if sorted(acls(rule)) == sorted(lines) else None


def is_base(role: Mapping[str, Any]) -> bool:
    """Whether a listed role ``user`` is as it should be."""
    return sorted(_listed_acls(role)) == sorted(BASE_ACLS)


def rules_of(client: Mapping[str, Any], known: Mapping[str, Rule | None]) -> frozenset[str] | None:
    """The names of the rules that a listed client holds; ``None`` if it holds anything else, or not as it should.

    ``known``: the broker's rules by name.
    """
    held = {(role["rolename"], role.get("priority", _LISTED_PRIORITY)) for role in client.get("roles", ())}
    rules = {(role, priority) for role, priority in held if role != BASE_ROLE}
    is_sound = (BASE_ROLE, _BASE_PRIORITY) in held and all(
        _is_ours(role) and priority == _priority(_is_whole(known.get(rule_name(role)))) for role, priority in rules
    )
    if not is_sound or client.get("groups") or client.get("disabled"):
        return None
    return frozenset(rule_name(role) for role, _ in rules)


def _is_whole(rule: Rule | None) -> bool:
    return rule is not None and rule.session is None


def _priority(is_whole: bool) -> int:  # noqa: FBT001 - private, and named where it is called
    return _WHOLE_PRIORITY if is_whole else _RULE_PRIORITY


def _is_ours(role: str) -> bool:
    return re.fullmatch(r"g-[0-9a-z]{4,40}", role, re.ASCII) is not None


def _listed_acls(role: Mapping[str, Any]) -> list[Acl]:
    return [
        Acl(line["acltype"], line["topic"], line.get("priority", 0), allow=line.get("allow", False))
        for line in role.get("acls", ())
    ]


def _as_json(lines: Sequence[Acl]) -> list[dict[str, Any]]:
    return [line._asdict() for line in lines]
