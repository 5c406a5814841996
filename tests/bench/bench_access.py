"""Access between a real Mosquitto and a real PostgreSQL that share this machine. 5 minutes; ``--short``: 1.

The bars are promises about a machine of two cores that does nothing else. The tests of the same, which run beside
others, allow for how slow the machine is just then.
"""

from typing import Final

from dmpd.lab.server import ServerError
from dmpd.runtime.errors import UnavailableError
from tests.bench import groups
from tests.bench.access import in_force, outage, rebuilt
from tests.bench.access.size import SHORT, WHOLE

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
    options = groups.parse(__doc__, GROUPS)
    size = SHORT if options.short else WHOLE
    groups.run("access", options, GROUPS, lambda measure: measure(size), failures=_FAILURES)


if __name__ == "__main__":
    main()
