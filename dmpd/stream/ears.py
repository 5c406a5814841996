"""Which workers have said something: one system call, however many there are. Most say nothing in most turns."""

import select

from dmpd.stream.channel import ParentEnd


class Ears:
    """Knows partitions by their channels. A channel is added when its worker starts and removed before it is closed."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._numbers: dict[int, int] = {}

    def add(self, channel: ParentEnd, number: int) -> None:
        self._epoll.register(channel, select.EPOLLIN)
        self._numbers[channel.fileno()] = number

    def remove(self, channel: ParentEnd) -> None:
        """It may have been removed before."""
        if self._numbers.pop(channel.fileno(), None) is not None:
            self._epoll.unregister(channel)

    def spoken(self) -> list[int]:
        """Partitions whose worker's words, or end, wait to be read. Does not block."""
        return [self._numbers[fd] for fd, _ in self._epoll.poll(0)]
