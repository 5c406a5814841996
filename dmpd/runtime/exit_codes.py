"""How a dmpd program ends. 64, 70 and 78 are those of sysexits.h; supervisord's ``exitcodes`` names 0, 64 and 78."""

from typing import Final

OK: Final = 0
"""Did what was asked, or drained after TERM."""
DIFFERENT: Final = 1
"""A command that compares or looks for something found a difference, or nothing."""
AMBIGUOUS: Final = 2
"""What was named fits several; they are listed."""
FAILED: Final = 3
"""A request was begun and did not succeed."""
REFUSED: Final = 4
"""A request was refused; nothing of it was done."""
EXPIRED: Final = 5
"""A request did not begin in its lifetime, or nobody said so in time."""
INTERRUPTED: Final = 6
"""A request was begun, and its RAE's program ended before it was done."""
USAGE: Final = 64
"""The command line is wrong."""
UNAVAILABLE: Final = 69
"""A server that the command needs does not answer."""
INTERNAL: Final = 70
"""An error of dmpd's own: supervisord starts the program again."""
BUSY: Final = 75
"""Another one runs already; the message says which."""
CONFIG: Final = 78
"""The configuration is wrong: a restart would not help, so supervisord shows EXITED."""
