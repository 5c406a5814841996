"""``dmpctl access``: who may see and command what until when, and the certificates that say who is who.

``grant``, ``revoke`` and ``extend`` return when the broker has done it and say how long that took, or why it has not.
``list`` shows grants, ``explain`` why a user sees a device session or does not, ``audit`` who did what and when the
broker had it, ``reconcile --dry-run`` what the broker lacks. ``ca`` is the small CA that dmpd brings: ``dmpctl access
ca --help``. A PKI of one's own does as well, if it keeps the rules of docs/operations.md.

Exit codes: 0 done (list, audit: there is something; explain: the user sees it; reconcile: nothing is missing), 1 not
so, or no such certificate, or one that ends soon, 3 it is done and the broker does not know it yet, 4 refused, nothing
was changed (held by others, a name or a time that cannot be), 6 left the queue (Ctrl-C), 64 wrong usage (a name that
no certificate may have, too), 69 the database or the daemon does not answer, or the library that the CA needs is not
installed here, 78 something cannot be used: the configuration, the database's schema, the CA, a file.
"""

import argparse
from typing import Final

from dmpd.cli import access_give, access_reconcile, access_show, commands

HELP: Final = "who may see and command which devices until when; certificates"
_VERBS: Final = (
    ("grant", access_give.configure_grant, access_give.run_grant, "let a user see, or command, devices"),
    ("revoke", access_give.configure_revoke, access_give.run_revoke, "end a grant now"),
    ("extend", access_give.configure_extend, access_give.run_extend, "let a grant end later"),
    ("list", access_show.configure_list, access_show.run_list, "grants, and how they are"),
    ("explain", access_show.configure_explain, access_show.run_explain, "why a user sees a session, or does not"),
    ("audit", access_show.configure_audit, access_show.run_audit, "who did what, and when the broker had it"),
    ("reconcile", access_reconcile.configure, access_reconcile.run, "compare the broker with the grants, now"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="verb", metavar="ACTION", required=True)
    for name, add_arguments, run_verb, about in _VERBS:
        one = actions.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        add_arguments(one)
        one.set_defaults(run_verb=run_verb)
    commands.add(actions, "ca", "dmpd.cli.ctl_ca")  # runs itself: its library is not installed everywhere


def run(args: argparse.Namespace) -> int:
    code: int = args.run_verb(args)
    return code
