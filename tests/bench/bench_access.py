"""Access between a real Mosquitto and a real PostgreSQL that share this machine. 5 minutes; ``--short``: 1.

The bars are promises about a machine of two cores that does nothing else. The tests of the same, which run beside
others, allow for how slow the machine is just then.
"""

import argparse
import sys
from typing import Final

from dmpd.lab.server import ServerError
from dmpd.runtime.errors import UnavailableError
from tests.bench.access import in_force, outage, rebuilt
from tests.bench.access.size import SHORT, WHOLE
from tests.bench.report import Figure, publish

GROUPS: Final = {
    "in_force": in_force.measure,
    "outage": outage.measure,
    "empty": rebuilt.measure_empty,
    "many": rebuilt.measure_many,
}
"""What ``--only`` takes."""
_FAILURES: Final = (AssertionError, OSError, UnavailableError, ServerError)
"""What did not come in time is an assertion of the tests' own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(GROUPS), action="append", help="these groups; may be repeated")
    parser.add_argument("--short", action="store_true", help="fewer grants, fewer turns: for trying, not for stating")
    options = parser.parse_args()
    chosen = options.only or list(GROUPS)
    figures: list[Figure] = []
    failed: list[str] = []
    for name in chosen:
        try:
            found = GROUPS[name](SHORT if options.short else WHOLE)
        except _FAILURES as error:  # the others are worth having all the same
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
            continue
        print(*(f"{one.figure}: {one.value:.4g} {one.unit}" for one in found), sep="\n", flush=True)
        figures += found
    publish("access" if options.only is None else "-".join(["access", *chosen]), figures)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
