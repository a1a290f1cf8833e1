# SPDX-License-Identifier: Apache-2.0
"""The service as a process: its socket, its VMs, what systemd is told."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcpu_proto.notify import Notifier

from ..core.reason import Reason
from ..documents import Document
from ..local.unix_sockets import bad_socket, bound, make_way
from ..sharing.unread import Unread
from .door import Connections, Door
from .keeper import Keeper
from .kept import Heard, HostLimits

if TYPE_CHECKING:
    from ..autoscale.decision import Decision
    from ..autoscale.history import Entry

#: Where systemd puts the first socket that it hands over (sd_listen_fds(3)).
_FIRST_FD = 3
#: Of a socket that the service makes itself: its user and group may connect.
_MODE = 0o660


class Unheard:
    """Nobody wants to know."""

    def view(self, name: str, document: Document) -> None:
        """See Heard."""

    def result(self, name: str, document: Document) -> None:
        """See Heard."""

    def gone(self, name: str, reason: Reason) -> None:
        """See Heard."""

    def sessions(self, name: str, more: int) -> None:
        """See Heard."""

    def decided(self, name: str, decision: Decision, mode: str) -> None:
        """See Heard."""

    def changed(self, name: str, place: str, entry: Entry, mode: str) -> None:
        """See Heard."""
        write_down(name, place, entry, mode)

    def configured(self, names: Collection[str]) -> None:
        """See Heard."""


def write_down(name: str, place: str, entry: Entry, mode: str) -> None:
    """Have the system's journal tell of a decision. Nobody waits for that: the decision counts in any case."""
    from ..autoscale.entry import fields
    from ..local import journald

    asyncio.get_running_loop().run_in_executor(None, journald.send, fields(name, place, entry, mode))


async def serve(
    path: str,
    stop: asyncio.Event,
    heard: Heard | None = None,
    environment: Mapping[str, str] = os.environ,
    host: HostLimits | None = None,
) -> None:
    """Serve the VMs of vms.d until ``stop`` is set, on the socket that systemd hands over, or on one made at ``path``.

    Then what is under way says what is known, to whoever waits for it and to the journal, before all ends.

    Raise UsageError if neither can be had.
    """
    from .rpc import RpcServers

    notifier = Notifier(environment)
    keeper = Keeper(heard or Unheard(), host)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, keeper.rescan)  # first: who sees the socket may send one
    handed = _handed_over(environment)
    listener = handed or _made(path)
    unread = Unread()  # one user's, whichever language it speaks
    connections: Connections = {}
    servers = RpcServers(keeper, unread, connections)
    door = Door(keeper, servers.of_user, unread, connections)
    keeping = loop.create_task(keeper.keep())
    telling = loop.create_task(_tell(notifier, keeper))
    stopped = loop.create_task(stop.wait())
    waits: set[asyncio.Task[Any]] = {keeping, telling, stopped}
    try:
        await door.open(listener)
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for ended in (keeping, telling):
            if ended.done():
                ended.result()
    finally:
        notifier.stopping()
        loop.remove_signal_handler(signal.SIGHUP)
        door.shut()
        await keeper.last_words()
        await servers.close()
        await door.close()
        for task in (keeping, telling, stopped):
            task.cancel()
        await asyncio.gather(keeping, telling, stopped, return_exceptions=True)
        if handed is None:
            with suppress(FileNotFoundError):
                os.unlink(path)


async def _tell(notifier: Notifier, keeper: Keeper) -> None:
    """Tell systemd that the service is up, how many VMs it has, and that it lives."""
    pause = 5.0 if notifier.watchdog is None else min(5.0, notifier.watchdog / 3)
    status = ""
    notifier.ready("starting")
    while True:
        vms = keeper.vms
        now = f"{sum(kept.held is not None for kept in vms)} of {len(vms)} VMs held"
        if now != status:
            status = now
            notifier.status(status)
        notifier.alive()
        await asyncio.sleep(pause)


def _handed_over(environment: Mapping[str, str]) -> socket.socket | None:
    """Return the listening socket that systemd made (sd_listen_fds(3)), or None."""
    if environment.get("LISTEN_PID") != str(os.getpid()) or environment.get("LISTEN_FDS") != "1":
        return None
    listener = socket.socket(fileno=_FIRST_FD)
    listener.setblocking(False)
    return listener


def _made(path: str) -> socket.socket:
    """Return a listening socket at ``path``, in place of one that was left there.

    Raise UsageError if that cannot be.
    """
    make_way(path)
    before = os.umask(0o777 & ~_MODE)
    try:
        return bound(Path(path))
    except OSError as error:
        raise bad_socket(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(before)
