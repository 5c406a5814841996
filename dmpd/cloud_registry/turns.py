"""What RAEs have to be told, a turn each: whose turn it is does not depend on how much the others have. Pure."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

_Thing = TypeVar("_Thing")

OF_ONE_MAX: Final = 250
"""Things of one RAE: more than the devices of a large one."""
THINGS_MAX: Final = 10_000
RAES_MAX: Final = 10_000


class Turns(Generic[_Thing]):
    """Things by RAE and name, in the order in which they came; ``pop`` goes round the RAEs.

    What finds no room is left out, and said so: whoever put it does so again when it comes again. A RAE of which
    nothing is here finds room for one thing however much the others have.

    Invariants: at most ``RAES_MAX`` RAEs, ``OF_ONE_MAX`` things of one, ``THINGS_MAX + RAES_MAX`` in all. Between a
    ``put`` and the ``pop`` of that RAE's oldest thing lie at most as many others as there are other RAEs.
    """

    def __init__(self) -> None:
        self._raes: OrderedDict[str, OrderedDict[str, _Thing]] = OrderedDict()
        self._things = 0

    def __len__(self) -> int:
        return self._things

    def __iter__(self) -> Iterator[tuple[str, str, _Thing]]:
        return ((rae, name, thing) for rae, things in self._raes.items() for name, thing in things.items())

    def get(self, rae: str, name: str) -> _Thing | None:
        """What is here of ``rae`` under ``name``."""
        things = self._raes.get(rae)
        return None if things is None else things.get(name)

    def put(self, rae: str, name: str, thing: _Thing) -> bool:
        """Add ``thing``, or put it in the place of what has its name; ``False``: no room."""
        things = self._raes.get(rae)
        if things is None:
            if len(self._raes) >= RAES_MAX:
                return False
            self._raes[rae] = things = OrderedDict()
        elif name not in things and (len(things) >= OF_ONE_MAX or self._things >= THINGS_MAX):
            return False
        self._things += name not in things
        things[name] = thing
        return True

    def pop(self) -> tuple[str, str, _Thing]:
        """Take the oldest thing of the RAE whose turn it is, which is then the last in turn. Something must be here."""
        rae, things = self._raes.popitem(last=False)
        name, thing = things.popitem(last=False)
        self._things -= 1
        if things:
            self._raes[rae] = things
        return rae, name, thing
