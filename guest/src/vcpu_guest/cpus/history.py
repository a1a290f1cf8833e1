# SPDX-License-Identifier: Apache-2.0
"""The journal's lines about CPUs: which came and went, were brought online and taken offline, and for whom.

Changes within a second make one line for each kind and each request. So the lines are written when the work is done,
not between a CPU's arrival and its write. If the changes do not stop, as where two programs fight over a CPU, lines
become rarer, until there is one a minute of each kind, with the number of changes.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from vcpu_guest import logs
from vcpu_guest.core import cpulist
from vcpu_guest.core.model import CpuResult, CpuStatus
from vcpu_guest.core.request import Request

#: Who made a change that no request asked for: another program in the guest, or the host without asking the agent.
OTHERS = "others"
#: Seconds from a change to its line, and the most that they become while changes do not stop.
GATHER, LONGEST_GATHER = 1.0, 60.0
#: The most lines at once, and the most firmware identities in one line.
_LINES, _NAMES = 16, 8
#: The most characters of a request's id.
_ID = 40

_CAME, _GONE = "CPUs came", "CPUs gone"

#: What a line says: the event, by whom, and why.
_Key = tuple[str, str, str]


class History:
    """Collects changes and writes their lines, in the event loop.

    The inventory reports what it sees, the writer what requests ask for.
    """

    def __init__(self) -> None:
        self._told = False
        self._groups: dict[_Key, Counter[int]] = {}
        #: By number: how many requests have the CPU in hand, and which CPUs were seen to change meanwhile.
        self._in_hand: Counter[int] = Counter()
        self._seen: set[int] = set()
        #: By number: the request that took the CPU offline for its ejection.
        self._to_eject: dict[int, str] = {}
        #: By number, the CPUs that went since the last line was written: the incarnation, and where it was noted.
        self._went: dict[int, tuple[int | None, _Key]] = {}
        self._names: dict[int, str] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._gather = GATHER
        self._rested_at = 0.0

    def begin(self) -> None:
        """Report changes from now on: what is there at the start is no news."""
        self._told = True

    # -- what is seen ------------------------------------------------------------------------------------------------

    def came(self, number: int, incarnation: int | None, *, online: bool) -> None:
        """Note that a CPU has come."""
        last = self._went.pop(number, None)
        if last is not None and last[0] == incarnation:
            self._take_back(last[1], number)  # it had not really gone
            return
        self._note(_CAME, OTHERS, number)
        if online:
            self.switched(number, online=True)

    def named(self, number: int, firmware_id: str) -> None:
        """Note a CPU's firmware identity."""
        self._names[number] = firmware_id

    def went(self, number: int, incarnation: int | None) -> None:
        """Note that a CPU has gone."""
        self._went[number] = incarnation, self._note(_GONE, self._to_eject.pop(number, OTHERS), number)

    def switched(self, number: int, *, online: bool) -> None:
        """Note that a CPU went online or offline. If a request has it in hand, `ended` decides who did it."""
        if self._in_hand[number]:
            self._seen.add(number)
            return
        self._note(_state(online=online), OTHERS, number)
        if online:
            self._to_eject.pop(number, None)

    # -- what is asked -----------------------------------------------------------------------------------------------

    def begun(self, number: int, request: Request) -> None:
        """Note that a request takes the CPU in hand. A CPU that has just come then came for that request."""
        self._in_hand[number] += 1
        if request.wait and self._take_back((_CAME, OTHERS, ""), number):
            self._note(_CAME, _label(request), number)

    def ended(self, number: int, request: Request, result: CpuResult | None) -> None:
        """Note that the request is done with the CPU, or has given it up (None). What was seen of it comes first."""
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
        """Write the lines that are still due."""
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
        """Remove a note; return False if there was none."""
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
            logs.info("more changes of CPUs than are listed", lines=len(groups) - _LINES)
        self._rested_at = asyncio.get_running_loop().time()
        self._gather = min(2 * self._gather, LONGEST_GATHER)


def _state(*, online: bool) -> str:
    return "CPUs online" if online else "CPUs offline"


def _label(request: Request) -> str:
    return f"request {request.request_id[:_ID]}" if request.request_id else "request"
