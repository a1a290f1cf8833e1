# SPDX-License-Identifier: Apache-2.0
"""All VMs of vms.d, as they come and go there."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress

from ..core import codes
from ..core.reason import Origin, Reason
from ..core.text import printable
from ..errors import UsageError
from ..local.open_files import allow_for
from ..local.target import AnyTarget, listed, marks
from ..sharing.log import tell
from .kept import Heard, HostLimits, Kept

#: How often vms.d is looked at, in seconds.
_RESCAN = 10.0
#: How long the places where links in the VMs' files lead to are taken for what they were, in seconds.
_PLACES_STAY = 1.0


class Keeper:
    """Keeps the VMs. ``broken`` are the files that name none, each with what is wrong."""

    def __init__(self, heard: Heard, host: HostLimits | None = None) -> None:
        self.broken: dict[str, Reason] = {}
        self._heard = heard
        self._host = host or HostLimits()
        self._vms: dict[str, tuple[Kept, asyncio.Task[None]]] = {}
        self._leaving: dict[asyncio.Task[None], Kept] = {}  # those that are let go when nobody changes them
        self._stops = False
        self._places: dict[str, Kept] = {}
        self._places_until = 0.0
        self._again = asyncio.Event()

    @property
    def vms(self) -> list[Kept]:
        """The VMs, by name."""
        return [kept for _, (kept, _) in sorted(self._vms.items())]

    def named(self, name: str) -> Kept:
        """Return the VM of that name. Raise UsageError if there is none."""
        found = self._vms.get(name)
        if found is not None:
            return found[0]
        broken = self.broken.get(name)
        text = f"vcpuctl serve keeps no VM of this name: {name!r:.100}"
        raise UsageError(broken or Reason(codes.NO_SUCH_VM, Origin.VCPUCTL, text, "vcpuctl vms shows the VMs"))

    def at(self, told: str) -> Kept | None:
        """Return the VM that is reached there (``local.target``, ``told`` or ``place``), or None.

        Whoever asks has resolved the name: here it is only compared, since what others write would cost the service as
        much time as they like.
        """
        for kept, _ in self._vms.values():
            if kept.target.told == told:
                return kept
        now = asyncio.get_running_loop().time()
        if now >= self._places_until:  # to find them out costs some calls of the system for each VM
            self._places = {kept.target.place: kept for kept, _ in self._vms.values()}
            self._places_until = now + _PLACES_STAY
        return self._places.get(told)

    def rescan(self) -> None:
        """Look at vms.d now."""
        self._again.set()

    async def keep(self) -> None:
        """Keep all VMs, until cancelled."""
        seen: object = None
        try:
            while True:
                if self._again.is_set():  # also if that came in the moment in which the wait was over
                    self._again.clear()
                    seen = None
                if (now := marks()) != seen:  # to read the files of 200 VMs takes 0.2 s
                    self._take(*_configured())
                    seen = now
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RESCAN):
                        await self._again.wait()
        finally:
            tasks = [*self._leaving, *(task for _, task in self._vms.values())]
            self._vms.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def last_words(self) -> None:
        """Have all that changes VMs end with what is known, and begin nothing (``Kept.last_words``)."""
        self._stops = True
        await asyncio.gather(*(kept.last_words() for kept in (*self.vms, *self._leaving.values())))

    def _take(self, wanted: dict[str, AnyTarget], broken: dict[str, Reason]) -> None:
        """Keep these VMs, and no others. One that is still reached as before stays held.

        One that is not is let go when nobody changes it: what is under way there ends first.
        """
        if self._stops:
            return
        self._places_until = 0.0
        allow_for(len(wanted))
        before = {
            name: self._vms.pop(name) for name, (kept, _) in [*self._vms.items()] if wanted.get(name) != kept.target
        }
        # By names that can be shown: what names no VM can have any name that a file can have.
        self._heard.configured([*wanted, *map(printable, broken)])
        self._host.budget.keep([*wanted, *broken])
        for name, target in wanted.items():
            if name in self._vms:
                self._vms[name][0].configure(target)
            else:
                kept = Kept(name, target, self._heard, self._host)
                self._vms[name] = kept, asyncio.ensure_future(_keep(kept, before.get(name)))
        for name, (kept, task) in before.items():
            self._leaving[task] = kept
            task.add_done_callback(self._has_left)
            if not kept.retire(self._vms[name][0] if name in self._vms else None):
                task.cancel()
        self._take_broken(broken, wanted)

    def _take_broken(self, broken: dict[str, Reason], wanted: Collection[str]) -> None:
        """Take what is wrong with files, and tell of what is new. A file that has gone is nobody's trouble."""
        before, self.broken = self.broken, broken
        for name, reason in broken.items():
            if before.get(name) != reason:
                tell(f"{name}: {reason}")
                self._heard.gone(printable(name), reason)
        for name in before:
            if name in wanted:
                tell(f"{name}: its file is right again")

    def _has_left(self, task: asyncio.Task[None]) -> None:
        del self._leaving[task]


async def _keep(kept: Kept, before: tuple[Kept, asyncio.Task[None]] | None) -> None:
    """Keep the VM, once the one of its name before it was let go: both may be one VM."""
    if before is not None:
        await asyncio.wait({before[1]})
    await kept.keep()


def _configured() -> tuple[dict[str, AnyTarget], dict[str, Reason]]:
    """Return the VMs of vms.d, and what is wrong with the other files. Of two with one name the first counts."""
    good: dict[str, AnyTarget] = {}
    broken: dict[str, Reason] = {}
    for path, found in listed():
        if path.stem in good or path.stem in broken:
            continue
        if not isinstance(found, Reason):
            good[path.stem] = found
        else:
            broken[path.stem] = found
    return good, broken
