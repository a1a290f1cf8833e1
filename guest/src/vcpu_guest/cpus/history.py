# SPDX-License-Identifier: Apache-2.0
"""The journal's lines about CPUs: which came and went, were brought online and taken offline, and for whom.

What comes about within a second is one line for each kind and each request, so that the lines are written when the work
is done and not between a CPU's arrival and its write. If it does not stop, as where two fight over a CPU, lines become
rarer: one a minute of each kind at last, with how often.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from vcpu_guest import logs
from vcpu_guest.core import cpulist
from vcpu_guest.core.model import CpuResult, CpuStatus
from vcpu_guest.core.request import Request

#: Who did it, if no request of the host's did: another in the guest, or the host without asking the agent.
OTHERS = "others"
#: Seconds from a change to its line, and what that becomes while changes do not stop.
GATHER, LONGEST_GATHER = 1.0, 60.0
#: Lines at once, and firmware's names in one of them.
_LINES, _NAMES = 16, 8
#: Characters of a request's id.
_ID = 40

_CAME, _GONE = "CPUs came", "CPUs gone"


#: What a line says: the event, by whom, and why.
_Key = tuple[str, str, str]


class History:
    """Is told by the watcher what is seen, and by the switch what is asked; in the event loop."""

    def __init__(self) -> None:
        self._told = False
        self._groups: dict[_Key, Counter[int]] = {}
        #: By number: requests that have the CPU in hand, and whether it was seen switched meanwhile.
        self._in_hand: Counter[int] = Counter()
        self._seen: set[int] = set()
        #: By number: the request that took it offline in order to have it ejected.
        self._to_eject: dict[int, str] = {}
        #: By number, what was seen to go within this line's time: its incarnation, and where it was noted.
        self._went: dict[int, tuple[int | None, _Key]] = {}
        self._names: dict[int, str] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._gather = GATHER
        self._rested_at = 0.0

    def begin(self) -> None:
        """What is there at the start is no news; from here on it is."""
        self._told = True

    # -- what is seen ------------------------------------------------------------------------------------------------

    def came(self, number: int, incarnation: int | None, *, online: bool) -> None:
        """A CPU is there that was not."""
        last = self._went.pop(number, None)
        if last is not None and last[0] == incarnation:
            self._take_back(last[1], number)  # it had not gone
            return
        self._note(_CAME, OTHERS, number)
        if online:
            self.switched(number, online=True)

    def named(self, number: int, firmware_id: str) -> None:
        """The firmware's name of a CPU has become known."""
        self._names[number] = firmware_id

    def went(self, number: int, incarnation: int | None) -> None:
        """A CPU is not there any more."""
        self._went[number] = incarnation, self._note(_GONE, self._to_eject.pop(number, OTHERS), number)

    def switched(self, number: int, *, online: bool) -> None:
        """A CPU that is there is in the other state; whose work that is turns out if a request has it in hand."""
        if self._in_hand[number]:
            self._seen.add(number)
            return
        self._note(_state(online=online), OTHERS, number)
        if online:
            self._to_eject.pop(number, None)

    # -- what is asked -----------------------------------------------------------------------------------------------

    def begun(self, number: int, request: Request) -> None:
        """A request takes the CPU in hand; if it has just come, for that request."""
        self._in_hand[number] += 1
        if request.wait and self._take_back((_CAME, OTHERS, ""), number):
            self._note(_CAME, _label(request), number)

    def ended(self, number: int, request: Request, result: CpuResult | None) -> None:
        """It is settled, or given up (None). Call it after what was seen of it."""
        self._in_hand -= Counter({number: 1})
        seen = number in self._seen
        self._seen.discard(number)
        if result is None or result.observed is None:
            return
        online = result.observed.online
        if result.status is CpuStatus.DONE:
            self._note(_state(online=online), _label(request), number)
        elif seen:
            self._note(_state(online=online), OTHERS, number)
        if result.status is CpuStatus.REFUSED and result.reason is not None:
            self._note(f"CPUs stay {'online' if online else 'offline'}", _label(request), number, result.reason.code)
        if online:
            self._to_eject.pop(number, None)
        elif request.for_eject:
            self._to_eject[number] = _label(request)

    # -- lines -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Say what is still to be said."""
        if self._timer is not None:
            self._timer.cancel()
            self._say()

    def _note(self, what: str, by: str, number: int, why: str = "") -> _Key:
        key = what, by, why
        if not self._told:
            return key
        self._groups.setdefault(key, Counter())[number] += 1
        if self._timer is None:
            loop = asyncio.get_running_loop()
            if loop.time() - self._rested_at > 2 * self._gather:
                self._gather = GATHER
            self._timer = loop.call_later(self._gather, self._say)
        return key

    def _take_back(self, key: _Key, number: int) -> bool:
        """Whether it had been noted."""
        times = self._groups.get(key)
        if times is None or not times[number]:
            return False
        times -= Counter({number: 1})
        if not times:
            del self._groups[key]
        return True

    def _say(self) -> None:
        self._timer = None
        groups = dict(self._groups)
        self._groups.clear()
        self._went.clear()
        for (what, by, why), times in list(groups.items())[:_LINES]:
            fields: dict[str, object] = {"cpus": cpulist.render(times)}
            if times.total() > len(times):
                fields["times"] = times.total()
            if what in {_CAME, _GONE}:
                names = [self._names[number] for number in sorted(times) if number in self._names][:_NAMES]
                fields["firmware_ids"] = ",".join(names)
            logs.info(what, **fields, by=by, **({"why": why} if why else {}))
        if len(groups) > _LINES:
            logs.info("more became of CPUs than is said", lines=len(groups) - _LINES)
        self._rested_at = asyncio.get_running_loop().time()
        self._gather = min(2 * self._gather, LONGEST_GATHER)


def _state(*, online: bool) -> str:
    return "CPUs online" if online else "CPUs offline"


def _label(request: Request) -> str:
    return f"request {request.request_id[:_ID]}" if request.request_id else "request"
