# SPDX-License-Identifier: Apache-2.0
"""The state machine in a world where anything may go wrong: the promises hold, and the next run mends the rest."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from kit.sim.ground import Faults
from kit.sim.trial import Trial, scale_to
from kit.sim.world import HAPPENINGS, World
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Outcome

# The same runs each time: a test that fails by chance stops people who changed something else.
_SETTINGS = settings(
    derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False
)
_CHANCE = st.sampled_from((0.0, 0.0, 0.0, 0.3, 1.0))
_HAPPENING = st.tuples(
    st.sampled_from((0.0, 0.005, 0.02, 0.3, 1.0, 2.5, 9.0)), st.sampled_from(sorted(HAPPENINGS)), st.integers(0, 5)
)
_CHANCES = ("lost", "doubled", "late", "add_refused", "del_refused", "online_refused", "offline_refused", "passing",
    "eject_refused", "eject_silent", "ignored", "auto_online", "stream_breaks", "lies")  # fmt: skip


@st.composite
def _faults(draw: st.DrawFn) -> Faults:
    chances = {name: draw(_CHANCE) for name in _CHANCES}
    happenings = tuple(draw(st.lists(_HAPPENING, max_size=4)))
    return Faults(**chances, happenings=happenings)


@st.composite
def _worlds(draw: st.DrawFn) -> World:
    total = draw(st.integers(1, 6))
    indices = st.sets(st.integers(0, total - 1))
    online = {0} | draw(indices)
    return World(
        total,
        online,
        draw(indices) - online,
        draw(st.sampled_from((1, 2))),
        draw(_faults()),
        draw(st.integers(0, 2**16)),
    )


@st.composite
def _requests(draw: st.DrawFn, world: World) -> Request:
    operation = draw(st.sampled_from(list(Operation)))
    unit = world.threads
    if operation is Operation.SCALE:
        return Request(operation, draw(st.integers(1, world.total)) * unit)
    if operation in (Operation.PLUG, Operation.UNPLUG) and draw(st.booleans()):
        return Request(operation, draw(st.integers(1, world.total)) * unit)
    slots = draw(st.sets(st.integers(0, world.total - 1), min_size=1))
    return Request(operation, None, tuple(map(str, sorted(slots))))


@settings(_SETTINGS, max_examples=800)
@given(st.data())
def test_the_promises_hold_whatever_goes_wrong_and_the_next_scale_mends_it(data: st.DataObject) -> None:
    world = data.draw(_worlds())
    request = replace(data.draw(_requests(world)), atomic=data.draw(st.booleans()))
    limits = Limits(timeout=data.draw(st.sampled_from((0.5, 5.0, 60.0))))
    trial = Trial(world, request, limits)
    try:
        trial.run()
        if world.dead:
            return
        world.calm()
        goal = data.draw(st.integers(1, world.total))
        trial = Trial(world, Request(Operation.SCALE, goal * world.threads))
        result = trial.run()
        assert result is None or result.outcome is Outcome.DONE, result
        assert not trial.plan.refusals
    finally:
        note("\n".join(map(str, trial.story)))
    assert [sim.up for sim in world.sims if sim.holder is not None] == [True] * goal


@settings(_SETTINGS, max_examples=200)
@given(st.data())
def test_scale_converges_at_once_while_the_last_faults_still_land(data: st.DataObject) -> None:
    """Run after run, without waiting for what is under way: in the end it is as asked."""
    world = data.draw(_worlds())
    Trial(world, data.draw(_requests(world)), Limits(timeout=2.0)).run()
    if world.dead:
        return
    world.faults = Faults()
    world.calmed = True
    goal = data.draw(st.integers(1, world.total)) * world.threads
    for _ in range(2):
        scale_to(world, goal)
    world.calm()
    scale_to(world, goal)
    assert sum(world.threads for sim in world.sims if sim.up) == goal
    assert not plan(world.view(), Request(Operation.SCALE, goal)).steps


_SETBACKS = st.tuples(
    st.sampled_from((0.0, 0.005, 0.02, 0.3, 1.0, 2.5, 9.0)),
    st.sampled_from(("agent dies", "pause", "reset")),
    st.just(0),
)


@settings(_SETTINGS, max_examples=400)
@given(st.data())
def test_lost_events_and_setbacks_cost_time_and_nothing_else(data: st.DataObject) -> None:
    """Nobody refuses: however many events are lost, and whoever restarts on the way, it is done in the end."""
    chances = {name: data.draw(_CHANCE) for name in ("lost", "doubled", "late", "auto_online")}
    breaks = data.draw(st.sampled_from((0.0, 0.3)))
    happenings = tuple(data.draw(st.lists(_SETBACKS, max_size=2)))
    faults = Faults(**chances, stream_breaks=breaks, happenings=happenings)
    total, threads = data.draw(st.integers(2, 6)), data.draw(st.sampled_from((1, 2)))
    online = {0} | data.draw(st.sets(st.integers(0, total - 1)))
    world = World(total, online, (), threads, faults, data.draw(st.integers(0, 2**16)))
    goal = data.draw(st.integers(1, total))
    trial = Trial(world, Request(Operation.SCALE, goal * threads), Limits(timeout=300.0, arrival_grace=60.0))
    result = trial.run()
    note("\n".join(map(str, trial.story)))
    assert result is None or result.outcome is Outcome.DONE
