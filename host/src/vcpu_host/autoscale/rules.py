# SPDX-License-Identifier: Apache-2.0
"""The rules that a change has to pass, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..core import codes
from ..core.text import more_vcpus, some_vcpus
from .decision import Check, Direction, Verdict
from .moves import HOUR, MOST_TURNS, Moves
from .outside import Outside
from .settings import Settings

#: Takes a goal, and returns what is left of it, with what there is to say; None: nothing.
Rule = Callable[[int], tuple[int, Check | None]]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules go by.

    ``booted`` is when the guest booted, ``covered`` for how many seconds its load is known, ``steal`` the share of its
    vCPUs' time that the host took away; None is not known. ``busy``: what they do alone fills them.
    """

    settings: Settings
    outside: Outside
    moves: Moves
    now: float
    enabled: bool
    floor: int
    ceiling: int
    booted: float | None
    covered: float
    steal: float | None
    busy: bool


def first_rules(facts: Facts) -> Iterator[Check | None]:
    """Yield what holds any change, until one does."""
    moves, now, outside = facts.moves, facts.now, facts.outside
    if not facts.enabled:
        yield _hold(codes.AUTOSCALE_OFF, "autoscaling is switched off for this VM; vcpuctl autoscale on begins again")
    elif outside.trouble is not None:
        yield _hold(outside.trouble.code, outside.trouble.text)
    elif moves.under_way is not None:
        yield _hold(codes.UNDER_WAY, f"scale {moves.under_way.goal} is under way")
    elif now < moves.operator_until:
        left = moves.operator_until - now
        yield _hold(codes.OPERATOR_HOLDS, f"somebody else has changed the VM: their word counts for {left:.0f} s more")
    elif outside.leaving:
        # A plug that was begun comes to its end by the next scale, and mostly by nothing else.
        yield _hold(codes.PENDING, "an earlier removal has not come to its end")
    elif now < moves.unknown_until:
        yield _hold(codes.OUTCOME_UNKNOWN, "how the last operation ended is not known yet")
    yield None


def up_rules(facts: Facts, *, by_load: bool) -> Iterator[Rule]:
    """Yield the rules for growing. ``by_load``: for the load's sake, and not for that of the minimum."""
    yield lambda goal: (goal, _backs_off(facts, Direction.UP))
    yield lambda goal: (goal, _turned(facts, Direction.UP, facts.settings.turn_pause))
    yield lambda goal: (goal, _paused(facts, Direction.UP, facts.settings.up_pause))
    if by_load:
        yield lambda goal: (goal, _settling(facts))
        yield lambda goal: (goal, _host_short(facts))
        yield lambda goal: (goal, _host_pressed(facts))
    yield lambda goal: _within_ceiling(goal, facts)
    yield lambda goal: (_with_the_plugged(goal, facts), None)
    yield lambda goal: _within_budget(goal, facts)


def down_rules(facts: Facts, *, by_load: bool) -> Iterator[Rule]:
    """Yield the rules for shrinking."""
    yield lambda goal: (goal, _backs_off(facts, Direction.DOWN))
    if by_load:
        yield lambda goal: (goal, _window_fills(facts))
    yield lambda goal: (goal, _turned(facts, Direction.DOWN, facts.settings.down_window))
    yield lambda goal: (goal, _paused(facts, Direction.DOWN, facts.settings.down_pause))
    if by_load:
        yield lambda goal: (goal, _oscillates(facts))
        yield lambda goal: _above_bar(goal, facts)
    yield lambda goal: _whole_slots(goal, facts)


def _hold(code: str, text: str) -> Check:
    return Check(code, Verdict.HOLDS, text)


def _backs_off(facts: Facts, direction: Direction) -> Check | None:
    known = facts.moves.backs_off(direction, facts.now)
    if known is None:
        return None
    why = "" if known.why is None else f" ({known.why.code}: {known.why.text})"
    text = f"{known.attempts} attempts did not succeed{why}: the next one comes in {known.until - facts.now:.0f} s"
    return _hold(codes.BACKS_OFF, text)


def _turned(facts: Facts, direction: Direction, pause: float) -> Check | None:
    last = facts.moves.last
    if last is None or last.direction is direction or last.age(facts.now) >= pause:
        return None
    did = "shrank" if last.direction is Direction.DOWN else "grew"
    return _hold(codes.IN_PAUSE, f"the VM {did} {last.age(facts.now):.1f} s ago: it does not turn within {pause:g} s")


def _paused(facts: Facts, direction: Direction, pause: float) -> Check | None:
    last = facts.moves.last
    if last is None or last.direction is not direction or last.age(facts.now) >= pause:
        return None
    return _hold(
        codes.IN_PAUSE, f"the last change ended {last.age(facts.now):.1f} s ago: there is a pause of {pause:g} s"
    )


def _settling(facts: Facts) -> Check | None:
    """Return a hold while there is no load to go by.

    A guest that boots is busy without having any load yet, and a moment's load is none.
    """
    grace = facts.settings.boot_grace
    if facts.booted is not None and facts.now - facts.booted < grace:
        text = f"the guest has booted {facts.now - facts.booted:.0f} s ago, less than {grace:g} s"
        return _hold(codes.JUST_BOOTED, text)
    if facts.covered < facts.settings.up_window:
        text = f"the load is known for {facts.covered:.1f} s, less than {facts.settings.up_window:g} s"
        return _hold(codes.WINDOW_FILLS, text)
    return None


def _window_fills(facts: Facts) -> Check | None:
    if facts.covered >= facts.settings.down_window:
        return None
    text = f"the load is known for {facts.covered:.0f} s, less than {facts.settings.down_window:g} s"
    return _hold(codes.WINDOW_FILLS, text)


def _host_pressed(facts: Facts) -> Check | None:
    room = facts.outside.room
    if not room.pressed:
        return None
    text = f"the host's own tasks wait {room.pressure:.0%} of the time, more than {room.pressure_limit:.0%}"
    return _hold(codes.HOST_PRESSED, text)


def _within_ceiling(goal: int, facts: Facts) -> tuple[int, Check | None]:
    online, step = facts.outside.online, max(1, facts.outside.step)
    whole = online + -(-(goal - online) // step) * step
    # What the guest calls parked is plugged all the same: else one that lies would get all that there is.
    ceiling = facts.ceiling - max(0, facts.outside.plugged - facts.outside.usable)
    if whole <= ceiling:
        return whole, None
    most = online + max(0, ceiling - online) // step * step
    parked = f", and {facts.ceiling - ceiling} are parked by the guest's SMT mode" if ceiling < facts.ceiling else ""
    text = f"{goal} vCPUs are wanted, the maximum is {facts.ceiling}{parked}"
    if most <= online:
        return online, _hold(codes.AT_MAXIMUM, text)
    return most, Check(codes.AT_MAXIMUM, Verdict.BOUNDS, text)


def _with_the_plugged(goal: int, facts: Facts) -> int:
    """Return the goal with all that is plugged, up to its maximum.

    A VM that grows has all online that it has plugged: else the others would be unplugged.
    """
    return max(goal, min(facts.outside.usable, facts.ceiling))


def _within_budget(goal: int, facts: Facts) -> tuple[int, Check | None]:
    online, step, left = facts.outside.online, max(1, facts.outside.step), facts.outside.room.vcpus
    plugs = goal - facts.outside.usable
    if left is None or plugs <= 0:
        return goal, None
    if facts.outside.room.unseen:
        text = f"{facts.outside.room.unseen} VMs were never seen: what is left of the host's budget is not known"
        return online, _hold(codes.OVER_BUDGET, text)
    if plugs <= left:
        return goal, None
    most = facts.outside.usable + max(0, left) // step * step
    text = f"the load wants {more_vcpus(plugs)}, the host's budget has {max(0, left)} left"
    if most <= online:
        return online, _hold(codes.OVER_BUDGET, text)
    return most, Check(codes.OVER_BUDGET, Verdict.BOUNDS, text)


def _oscillates(facts: Facts) -> Check | None:
    if not facts.moves.oscillates(facts.now):
        return None
    text = f"the VM turned {MOST_TURNS} times within {HOUR / 60:.0f} minutes: it grows, and does not shrink"
    return _hold(codes.OSCILLATES, text)


def _above_bar(goal: int, facts: Facts) -> tuple[int, Check | None]:
    bar, online = facts.moves.bar, facts.outside.online
    if bar is None or facts.now >= bar.until or goal >= bar.level:
        return goal, None
    left = bar.until - facts.now
    text = f"fewer than {some_vcpus(bar.level)} were not enough a while ago: not below that for {left:.0f} s more"
    if bar.level >= online:
        return online, _hold(codes.REGRETTED, text)
    return bar.level, Check(codes.REGRETTED, Verdict.BOUNDS, text)


def _whole_slots(goal: int, facts: Facts) -> tuple[int, Check | None]:
    online, step = facts.outside.online, max(1, facts.outside.step)
    whole = online - (online - goal) // step * step
    if whole == online:
        text = f"{some_vcpus(online - goal)} could go, and a slot has {step}"
        return online, _hold(codes.LOAD_FITS, text)
    return whole, None


def _host_short(facts: Facts) -> Check | None:
    steal, limit = facts.steal, facts.settings.steal
    if steal is None:
        return None
    if steal > limit:
        return _hold(codes.HOST_SHORT, f"the host takes {steal:.0%} of the guest's CPU time, more than {limit:.0%}")
    if facts.busy or limit >= 1.0:
        return None
    # More vCPUs bring none of that back.
    text = f"the guest's CPUs are full by what the host takes of their time alone ({steal:.0%})"
    return _hold(codes.HOST_SHORT, text)
