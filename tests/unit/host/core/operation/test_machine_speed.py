# SPDX-License-Identifier: Apache-2.0
"""What the state machine itself costs, where everything answers at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from kit.sim.effort import Effort, growth
from kit.sim.views import INFO, guest, host
from vcpu_host.core.guest import CpuResult, CpuStatus, GuestCpu, GuestView
from vcpu_host.core.model import HostView, Ost
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.operation.machine import Machine
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Outcome
from vcpu_host.core.view import join


class _Ideal:
    """A world that answers every action at once; ``effort`` is what the machine takes."""

    def __init__(self, view: HostView, online: set[int], goal: int) -> None:
        shown = join(view, guest(view, online), agent=INFO)
        self.total = len(view.slots)
        self.filled = set(online)
        self.machine = Machine(
            plan(shown, Request(Operation.SCALE, goal)),
            shown.platform,
            Limits(timeout=1000.0),
            session="s",
            now=0.0,
            identities=shown.identities,
        )
        self.now = 0.0
        self.effort = Effort()
        self.looks = 0
        self.online = set(online)
        self.names = {slot.index: shown.platform.firmware_ids(view, slot)[0] for slot in view.slots}
        self.slots = {name: index for index, name in self.names.items()}
        self.requests: dict[int, int] = {}

    def run(self) -> None:
        """One event at a time, and a decision after each: nothing is saved by doing many at once."""
        waiting: deque[ev.Event] = deque()
        while not self.machine.finished:
            event = waiting.popleft() if waiting else ev.Tick()
            with self.effort.counting():
                self.machine.feed(event, self.now)
                actions = self.machine.advance(self.now)
            for action in actions:
                waiting.extend(self._answers(action))
            self.now = self.now + 0.0001 if waiting else max(self.now, self.machine.wake_at)

    def _answers(self, action: ev.Action) -> list[ev.Event]:
        match action:
            case ev.DoPlug():
                self.filled.add(action.slot)
                cpu = GuestCpu(action.slot, self.names[action.slot], False)
                return [
                    ev.PlugReturned(action.slot, None),
                    ev.OstReported(action.slot, Ost(1, 0)),
                    ev.CpuArrived("s", cpu),
                    self._settled(self.requests[action.slot], action.slot, online=True),
                ]
            case ev.DoUnplug():
                self.filled.discard(action.slot)
                return [ev.UnplugReturned(action.slot, None), ev.DeviceDeleted(action.slot)]
            case ev.DoSetOnline():
                indices = [self.slots[name] for name in action.firmware_ids]
                self.requests.update(dict.fromkeys(indices, action.request))
                return (
                    [] if action.online else [self._settled(action.request, index, online=False) for index in indices]
                )
            case ev.DoLookGuest():
                cpus = tuple(GuestCpu(index, self.names[index], index in self.online) for index in sorted(self.filled))
                return [ev.GuestLooked("s", GuestView(1, "b", "i", cpus), self.now)]
            case ev.DoLookHost():
                self.looks += 1
                return [ev.HostLooked(host(self.total, self.filled), self.now)]
            case _:
                raise AssertionError(action)

    def _settled(self, request: int, index: int, *, online: bool) -> ev.CpuSettled:
        cpu = GuestCpu(index, self.names[index], online)
        (self.online.add if online else self.online.discard)(index)
        return ev.CpuSettled("s", request, CpuResult(cpu.firmware_id, CpuStatus.DONE, None, cpu, 0.001))


def _measure(online: set[int], goal: int) -> _Ideal:
    world = _Ideal(host(240, online), online, goal)
    world.run()
    assert world.machine.result(world.now).outcome is Outcome.DONE
    assert len(world.filled) == goal
    return world


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_scale_of_eight_times_the_vcpus_costs_the_machine_about_eight_times_as_much(up: bool) -> None:
    def spent(total: int) -> int:
        return (_measure({0}, total) if up else _measure(set(range(total)), 1)).effort.calls

    assert spent(240) / spent(30) < 12, "what grows with the square would be 64"


def test_looks_at_qemu_are_few_when_many_slots_come_up() -> None:
    assert _measure({0}, 240).looks < 30


def test_a_map_and_a_plan_of_eight_times_the_slots_take_about_eight_times_as_long() -> None:
    def prepare(total: int) -> Callable[[], object]:
        online = set(range(0, total, 3))
        view = host(total, online)
        looked = guest(view, online)
        request = Request(Operation.SCALE, total - total // 40)
        return lambda: plan(join(view, looked, agent=INFO), request)

    assert growth(prepare, 512, 4096) < 12, "what grows with the square would be 64"
