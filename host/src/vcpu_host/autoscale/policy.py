# SPDX-License-Identifier: Apache-2.0
"""The policy: what is heard goes in, a decision comes out.

``decide`` changes nothing, so it can be asked at any time.
"""

from __future__ import annotations

import math

from ..core import codes
from ..core.reason import Outcome, Reason
from ..core.text import some_vcpus
from .decision import Check, Decision, Verdict
from .moves import Moves
from .outside import Outside
from .rules import Facts, down_rules, first_rules, up_rules
from .sample import LoadSample
from .settings import Settings
from .usage import Meter, Usage
from .window import ERROR, Averages, Peak, Window

#: Load that was heard of longer ago, in seconds, decides nothing.
STALE = 15.0
#: What a demand may be over a whole number of vCPUs, in vCPUs, without taking one more: the guest's daemons.
TOLERANCE = 0.1
#: The dead band: a VM grows when its CPUs are busier than its target by so much, and shrinks to what meets the target.
BAND = 0.05
#: CPUs that are busy for such a share of the time are never idle.
NEVER_IDLE = 0.95
#: A queue of which less is left, as a share of the average, gets shorter.
DRAINS = 0.9
#: A VM at most doubles at once, or gets so many more: a queue that has built up looks like more than it takes.
AT_ONCE = 3


class Policy:
    """Decides for one VM. Times are in seconds of one clock that never goes back."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.enabled = True
        self._meter = Meter()
        self._window = Window(settings.up_window, settings.down_window, STALE)
        self._moves = Moves(settings)
        self._no_load: Reason | None = None
        self._booted: float | None = None  # when the guest booted, by our clock
        self._now = -math.inf

    def reconfigure(self, settings: Settings) -> None:
        """Go by other settings. What was done stays known; what was heard does where it is averaged as before."""
        old, self.settings, self._moves.settings = self.settings, settings, settings
        if (old.up_window, old.down_window) != (settings.up_window, settings.down_window):
            self._window = Window(settings.up_window, settings.down_window, STALE)

    # --- what is heard ------------------------------------------------------------------------------------------------

    def sample(self, sample: LoadSample, now: float) -> None:
        """Take what the guest's agent measured."""
        if not now >= self._now:
            return
        self._now, self._no_load = now, None
        usage = self._meter.take(sample, now)
        if math.isfinite(sample.guest_time):
            self._booted = now - max(0.0, sample.guest_time)
        if usage is not None:
            self._window.add(usage)

    def lost(self, why: Reason) -> None:
        """Take that the guest's load is not heard of any more, or cannot be, and why."""
        self._no_load = why
        self._meter.reset()
        self._window.clear()

    def begun(self, decision: Decision, now: float) -> None:
        """Take that a decision is being carried out."""
        self._moves.begun(decision.online, decision.goal, now)

    def ended(self, outcome: Outcome, why: Reason | None, now: float) -> None:
        """Take how that ended."""
        self._moves.ended(outcome, why, now)

    def operated(self, now: float) -> None:
        """Take that somebody else changes the VM, or has changed it."""
        self._moves.operated(now)

    def switch(self, *, on: bool) -> None:
        """Begin or end deciding.

        Who switches it on wants it to decide now: nobody's command holds it off any longer.
        """
        self.enabled = on
        if on:
            self._moves.free()

    # --- what is decided ----------------------------------------------------------------------------------------------

    def decide(self, outside: Outside, now: float) -> Decision:
        """Return the goal, or a hold with its reason."""
        now = max(now, self._now)
        settings = self.settings
        # A VM that can never have so many vCPUs has its maximum below that of the settings, and its minimum with it.
        # One that has more that cannot go than its maximum says is left with these.
        fixed = min(outside.fixed, outside.online)
        ceiling = max(1, fixed, min(settings.max, outside.possible))
        load = self._window.averages(now)
        facts = Facts(
            settings=settings,
            outside=outside,
            moves=self._moves,
            now=now,
            enabled=self.enabled,
            floor=min(max(fixed, settings.floor(outside.clock)), ceiling),
            ceiling=ceiling,
            booted=self._booted,
            covered=self._window.covered(now),
            steal=None if load is None else min(1.0, load.steal / load.cpus),
            busy=load is not None and load.used >= _full_at(settings) * outside.online,
        )
        held = [check for check in first_rules(facts) if check is not None]
        if held and held[-1].verdict is Verdict.HOLDS:
            return self._decision(facts, outside.online, tuple(held))
        return self._by_bounds(facts) or self._by_load(facts)

    def _by_bounds(self, facts: Facts) -> Decision | None:
        """Bring the VM within its bounds; that takes no load."""
        online = facts.outside.online
        if online < facts.floor:
            check = Check(
                codes.BELOW_MINIMUM, Verdict.PASSES, f"{some_vcpus(online)} online, the minimum is {facts.floor}"
            )
            return self._changed(facts, facts.floor, check, by_load=False)
        if online > facts.ceiling:
            check = Check(
                codes.ABOVE_MAXIMUM, Verdict.PASSES, f"{some_vcpus(online)} online, the maximum is {facts.ceiling}"
            )
            return self._changed(facts, facts.ceiling, check, by_load=False)
        return None

    def _by_load(self, facts: Facts) -> Decision:
        now, online = facts.now, facts.outside.online
        load, highest = self._window.averages(now), self._window.highest(now)
        newest = self._window.newest
        if self._no_load is not None:
            return self._held(facts, Check(self._no_load.code, Verdict.HOLDS, self._no_load.text))
        if load is None or newest is None or highest is None:
            return self._held(facts, Check(codes.NO_LOAD, Verdict.HOLDS, "nothing was heard of the guest's load yet"))
        if now - newest.at > STALE:
            text = f"the guest's load was heard of {now - newest.at:.0f} s ago, more than {STALE:.0f} s"
            return self._held(facts, Check(codes.LOAD_STALE, Verdict.HOLDS, text))
        full = _full(load, facts)
        drains = self._drains(now, load)
        if full.verdict is Verdict.PASSES and drains is not None:
            return self._held(facts, full, drains)
        if full.verdict is Verdict.PASSES:
            return self._changed(facts, _needed(load, newest, facts), full, by_load=True)
        least = _least(highest, facts.settings)
        if least < online:
            return self._shrunk(facts, full, least, highest)
        return self._held(facts, full)

    def _drains(self, now: float, load: Averages) -> Check | None:
        """Hold while the queue gets shorter: what there is works it off, and counts for nothing in what is needed."""
        newest = self._window.newest
        if newest is None or newest.waiting is None or load.waiting is None or now - newest.at > load.covers:
            return None
        if newest.waiting >= DRAINS * load.waiting:
            return None
        text = f"{newest.waiting:.1f} tasks wait, fewer than the {load.waiting:.1f} of the last {load.covers:.1f} s"
        return Check(codes.QUEUE_DRAINS, Verdict.HOLDS, text)

    def _shrunk(self, facts: Facts, full: Check, least: int, highest: Peak) -> Decision:
        window, online = facts.settings.down_window, facts.outside.online
        used, demand = f"{highest.used:.2f} vCPUs used", f"{highest.demand:.2f} with what waited or was stolen"
        said = (
            f"the most within {window:g} s was {used}, {demand}: {some_vcpus(least)} would do, and {online} are online"
        )
        if online <= facts.floor:
            fixed = facts.outside.fixed >= online
            why = "none of these can be unplugged" if fixed else "the minimum"
            return self._held(facts, full, Check(codes.AT_MINIMUM, Verdict.HOLDS, f"{said}: {why}"))
        less = Check(codes.LOAD_NEEDS_LESS, Verdict.PASSES, said)
        return self._changed(facts, max(least, facts.floor), less, by_load=True)

    def _changed(self, facts: Facts, wanted: int, why: Check, *, by_load: bool) -> Decision:
        """Return what the rules leave of a change to ``wanted`` vCPUs."""
        online, goal, checks = facts.outside.online, wanted, [why]
        up = wanted > online
        for rule in (up_rules if up else down_rules)(facts, by_load=by_load):
            goal, check = rule(goal)
            if check is not None:
                checks.append(check)
            if check is not None and check.verdict is Verdict.HOLDS:
                return self._decision(facts, online, tuple(checks), wanted=wanted)
        # What decided comes last.
        return self._decision(facts, goal, (*checks[1:], why), wanted=wanted)

    def _held(self, facts: Facts, *checks: Check) -> Decision:
        return self._decision(facts, facts.outside.online, checks)

    def _decision(self, facts: Facts, goal: int, checks: tuple[Check, ...], *, wanted: int | None = None) -> Decision:
        load, highest = self._window.averages(facts.now), self._window.highest(facts.now)
        return Decision(
            at=facts.now,
            online=facts.outside.online,
            goal=goal,
            floor=facts.floor,
            ceiling=facts.ceiling,
            checks=checks,
            load=load,
            need=None if load is None else _least(Peak(load.demand, load.used, load.running), facts.settings),
            highest=None if highest is None else _least(highest, facts.settings),
            wanted=wanted,
        )


def _full_at(settings: Settings) -> float:
    """Return the share of the time from which on CPUs that are busy are full."""
    return min(settings.target + BAND, NEVER_IDLE)


def _least(peak: Peak, settings: Settings) -> int:
    """Return how many vCPUs are enough for this.

    Nobody waits, they are not so busy that somebody soon would, and they are not full: a VM that shrinks does not grow
    for the same load. Of fewer vCPUs the host may take more time, so what it took counts as if they had to run it.
    """
    enough = max(peak.demand, peak.used / settings.target) - TOLERANCE
    not_full = max(peak.used / _full_at(settings), peak.running / NEVER_IDLE)
    return max(1, math.ceil(max(enough, not_full)))


def _full(load: Averages, facts: Facts) -> Check:
    """Return the check that says whether the VM's vCPUs are full.

    They are if they are busy or never idle, and tasks wait for them. A CPU that is never idle is full however little
    the host lets it do.
    """
    settings, online = facts.settings, facts.outside.online
    limit = _full_at(settings)
    if load.pressure is not None:
        waits, said = load.pressure >= settings.pressure, f"some task waits {load.pressure:.0%} of the time"
    elif load.waiting is not None:
        waits, said = load.waiting >= settings.pressure * online, f"{load.waiting:.2f} tasks wait"
    else:
        waits, said = True, "whether tasks wait is not known"
    busy = load.used / online if online else 1.0
    stolen = load.steal / online if online else 0.0
    taken = f"the host takes {stolen:.0%}, " if stolen >= ERROR else ""
    are = "is" if online == 1 else "are"
    text = f"{some_vcpus(online)} {are} busy {busy:.0%} of the time (full at {limit:.0%}), {taken}and {said}"
    full = busy >= limit or busy + stolen >= NEVER_IDLE
    if full and waits:
        return Check(codes.LOAD_NEEDS_MORE, Verdict.PASSES, text)
    if full:
        return Check(codes.NOBODY_WAITS, Verdict.HOLDS, text)
    return Check(codes.WAITS_NOT_BUSY if waits and load.pressure else codes.LOAD_FITS, Verdict.HOLDS, text)


def _needed(load: Averages, newest: Usage, facts: Facts) -> int:
    """Return how many vCPUs a load takes that fills those which there are.

    While they are idle now and then, what is used is what there is to do, and they were too few for it to be done at
    once. When they are never idle, only the queue tells how much more there is.
    """
    online, settings = facts.outside.online, facts.settings
    if load.waiting is None or newest.used + newest.steal + newest.missed < NEVER_IDLE * online:
        return max(online + 1, math.ceil(load.used / settings.target))
    wanted = load.used + load.waiting  # not what was stolen: more vCPUs bring none of that back
    return min(max(online + 1, math.ceil(wanted - TOLERANCE)), max(2 * online, online + AT_ONCE))
