# SPDX-License-Identifier: Apache-2.0
"""How much of what others are sent may be unread: in total, and by one user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

#: Bytes that all may leave unread together, and that one user's programs may. A map of 4096 slots is 3 MB.
_MOST, _OF_ONE = 32 << 20, 16 << 20
#: Seconds after which who has taken nothing is cut off, if somebody waits for the room.
_PATIENCE = 5.0


class Room:
    """Room for one message. ``cut`` ends the one that it is for."""

    def __init__(self, user: int, size: int, cut: Callable[[], object]) -> None:
        self.user = user
        self.size = size
        self.cut = cut
        self.since = 0.0
        self.moved()

    def moved(self) -> None:
        """Know that some of it was taken."""
        self.since = asyncio.get_running_loop().time()


class Unread:
    """Bounds what is unread. Who has nothing unread may always be sent one message, however long."""

    def __init__(self, most: int = _MOST, of_one: int = _OF_ONE, patience: float = _PATIENCE) -> None:
        self._most = most
        self._of_one = of_one
        self._patience = patience
        self._rooms: dict[Room, None] = {}  # the oldest first
        self._freed = asyncio.Event()  # each time another one

    def held(self, user: int | None = None) -> int:
        """Return how many bytes are unread: by this user's programs, or by all."""
        return sum(room.size for room in self._rooms if user in (None, room.user))

    @asynccontextmanager
    async def room(self, user: int, size: int, cut: Callable[[], object]) -> AsyncIterator[Room]:
        """Wait for room for a message, and have it meanwhile.

        While somebody waits, ``cut`` is called for those that have taken nothing for too long.
        """
        while not self._fits(user, size):
            try:
                async with asyncio.timeout(self._patience):
                    await self._freed.wait()
            except TimeoutError:
                self._cut(user, size)
        room = Room(user, size, cut)
        self._rooms[room] = None
        try:
            yield room
        finally:
            del self._rooms[room]
            self._freed.set()
            self._freed = asyncio.Event()

    def _fits(self, user: int, size: int) -> bool:
        """Return whether there is room, for this user and for anybody."""
        total = self.held()
        return self._fits_user(user, size) and (total == 0 or total + size <= self._most)

    def _fits_user(self, user: int, size: int) -> bool:
        own = self.held(user)
        return own == 0 or own + size <= self._of_one

    def _cut(self, user: int, size: int) -> None:
        """End those that stand in the way: the user's own if it has too much, else anybody's."""
        since = asyncio.get_running_loop().time() - self._patience
        own = not self._fits_user(user, size)
        for room in [room for room in self._rooms if room.since <= since and (not own or room.user == user)]:
            room.cut()
