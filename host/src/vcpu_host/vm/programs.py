# SPDX-License-Identifier: Apache-2.0
"""Plans that know of the guest's programs, and what the agent says of these: before an operation, after it, for doctor.

Imported only where somebody asks: most looks at a VM have nothing to do with its guest's programs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from .. import ports
from ..core import codes
from ..core.operation.reasons import interrupted
from ..core.operation.result import OperationResult
from ..core.planning.plan import OnWorkload, Plan, Request
from ..core.planning.planner import plan
from ..core.planning.programs import (
    brings,
    candidates,
    does_something,
    goes_down,
    no_agent,
    no_eyes,
    takes,
    unasked,
    unseen,
)
from ..core.planning.selectors import SelectorError
from ..core.reason import Origin, Outcome, Reason
from ..core.view import VmView
from ..core.workload import cpus
from ..core.workload.model import Note, Programs, Workload
from ..core.workload.unused import broken, unused
from ..errors import VcpuctlError, bad_slot
from .waiting import unless

#: How often programs are looked at for one plan: what a look tells may lead to slots that it was not about.
LOOKS = 3
#: How long the look after an operation may take, in seconds, also where the operation has used up its time.
LAST_LOOK = 2.0
_LOST = Reason(codes.AGENT_LOST, Origin.AGENT, "the session with the agent has ended", "see vcpuctl doctor")
_LATE = Reason(codes.AGENT_SLOW, Origin.AGENT, "the agent has not looked at them in time", "see vcpuctl doctor")


async def planned(
    agent: ports.GuestAgent | None,
    view: VmView,
    request: Request,
    on_workload: str,
    *,
    shows: bool = False,
    recovered: bool = False,
) -> tuple[VmView, Plan]:
    """Return a plan, and the view that it was made from: with the guest's programs, if the plan has to do with them.

    Raise UsageError "bad-slot" if the request does not fit this VM.
    """
    make = partial(_planned, request=request, recovered=recovered)
    decided = make(view)
    idle = not decided.steps and not decided.recover
    if idle or on_workload == OnWorkload.IGNORE:
        return view, decided
    on = OnWorkload(on_workload)
    if request.without_agent:
        return uninformed(view, decided, on, make)
    return await informed(agent, view, decided, on, make, shows=shows)


def _planned(view: VmView, request: Request, *, recovered: bool) -> Plan:
    try:
        return plan(view, request, recovered=recovered)
    except SelectorError as error:
        raise bad_slot(str(error)) from error


async def informed(
    agent: ports.GuestAgent | None,
    view: VmView,
    decided: Plan,
    on: OnWorkload,
    make: Callable[[VmView], Plan],
    *,
    shows: bool,
) -> tuple[VmView, Plan]:
    """Return the view with what is known of the guest's programs, and the plan that ``make`` makes of it.

    If that takes slots that nobody has asked about, they are asked about, too. After LOOKS times the plan stands, and
    tells what was not looked at, or is refused for it.
    """
    for _ in range(LOOKS):
        seen = await looked_at(agent, view, decided, on, shows=shows)
        if seen is view or seen.programs is None:
            return view, decided
        decided = make(seen._replace(programs=seen.programs._replace(refuses=False)))  # a refusal names no slots
        view = seen
        if not unasked(seen, decided):
            break
    refuses = view.programs is not None and view.programs.refuses
    return view, make(view) if refuses else decided


def uninformed(view: VmView, decided: Plan, on: OnWorkload, make: Callable[[VmView], Plan]) -> tuple[VmView, Plan]:
    """Return what ``informed`` does, for whoever wants nobody to be asked (``Request.without_agent``).

    Then nobody knows who is hurt, so what takes CPUs away is refused where what hurts is. All else stands, and tells
    nothing of programs.
    """
    if on is not OnWorkload.REFUSE or not takes(decided):
        return view, decided
    view = view._replace(programs=Programs(None, no_agent(), refuses=True))
    return view, make(view)


async def looked_at(
    agent: ports.GuestAgent | None, view: VmView, decided: Plan, on: OnWorkload, *, shows: bool
) -> VmView:
    """Return the view with what is known of the guest's programs, as far as this plan needs it.

    CPUs that come hurt programs on few kernels only, and what they then lose is told afterwards. So a plan that only
    brings some has a look beforehand if it is to be shown (``shows``), or if what hurts is to be refused.
    """
    known = view.programs.asked if view.programs is not None else None
    going = tuple(dict.fromkeys((*candidates(view, decided), *(known or ()))))
    refuses = on is OnWorkload.REFUSE
    if on is OnWorkload.IGNORE or not does_something(decided) or not (going or shows or refuses):
        return view
    found, trouble = await _ask(agent, going, use=brings(decided), forgotten=True)
    return view._replace(programs=Programs(found, trouble, refuses, frozenset(going)))


async def told(
    agent: ports.GuestAgent | None,
    view: VmView,
    decided: Plan,
    result: OperationResult,
    stop: asyncio.Event,
    seconds: float,
) -> OperationResult:
    """Return the result with what was known beforehand, and what has become of the guest's programs since.

    ``view`` is what the plan was made from.
    The look at them is broken off after so many seconds, and when whoever waits for the result wants it (``stop``).
    """
    notes = decided.notes
    settled = [slot for slot in result.slots if slot.outcome is not Outcome.UNKNOWN]
    if agent is not None and not agent.ended and settled:
        found, trouble = await _in_time(stop, seconds, _ask(agent, (), use=True, broken=True))
        if found is not None:
            before = view.programs.workload if view.programs is not None else None
            notes = (*notes, *_since(decided, result, found, before))
        elif trouble is not None and not any(note.text == unseen(trouble).text for note in notes):
            notes = (*notes, unseen(trouble))
    return result._replace(notes=notes)


async def _in_time(
    stop: asyncio.Event, seconds: float, asking: Coroutine[Any, Any, tuple[Workload | None, Reason | None]]
) -> tuple[Workload | None, Reason | None]:
    try:
        async with asyncio.timeout(max(LAST_LOOK, seconds)):
            return await unless(stop, asking) or (None, interrupted())
    except TimeoutError:
        return None, _LATE


def _since(decided: Plan, result: OperationResult, found: Workload, before: Workload | None) -> Sequence[Note]:
    up = {step.slot.index for step in decided.steps if not goes_down(step)}
    came = cpus.of(number for slot in result.slots if slot.slot in up for number in slot.guest_cpus) & found.online
    after = unused(found, found.online.bit_count(), came, before)
    return [*broken(found), *(note for note in after if came or note.hurts)]


async def for_doctor(agent: ports.GuestAgent | None, view: VmView) -> VmView:
    """Return the view with what keeps programs from using CPUs, and what waits for CPUs that are away."""
    if agent is None or view.agent is None:
        return view
    found, trouble = await _ask(agent, (), use=True, broken=True, forgotten=True)
    return view._replace(programs=Programs(found, trouble))


async def _ask(
    agent: ports.GuestAgent | None,
    going: Sequence[str],
    *,
    use: bool = False,
    broken: bool = False,
    forgotten: bool = False,
) -> tuple[Workload | None, Reason | None]:
    """Return what the agent has found, or why it has not."""
    if agent is None:
        return None, _LOST
    if not agent.info.sees_programs:
        return None, no_eyes(agent.info.version)
    try:
        return await agent.workload(going, use=use, broken=broken, forgotten=forgotten), None
    except VcpuctlError as error:
        return None, error.reason
