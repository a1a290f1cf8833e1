# SPDX-License-Identifier: Apache-2.0
"""One operation taken step by step: what the machine is told, and what it asks for."""

from __future__ import annotations

from kit.sim.views import INFO, guest, host, identities, vm
from vcpu_host.core.guest import CpuResult, CpuStatus, GuestCpu, GuestView
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.operation.machine import Machine
from vcpu_host.core.operation.result import SlotResult
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import VmView, join

_BUSY = Reason("last-cpu", Origin.GUEST, "the last one", errno="EBUSY")
_LOST = Reason("agent-lost", Origin.AGENT, "vcpud died")


class Step:
    """A machine, the time, and what it has asked for since the last look at ``asked``."""

    def __init__(
        self,
        view: VmView,
        operation: str,
        *slots: str,
        count: int | None = None,
        limits: Limits | None = None,
        without_agent: bool = False,
        atomic: bool = False,
    ) -> None:
        request = Request(Operation(operation), count, slots, without_agent=without_agent, atomic=atomic)
        self.view = view
        self.now = 100.0
        self.machine = Machine(
            plan(view, request),
            view.platform,
            limits or Limits(),
            session="s1",
            now=self.now,
            identities=view.identities,
        )
        self.session = "s1"
        self.threads = view.host.slots[0].vcpus
        self.asked = self.machine.advance(self.now)

    def tell(self, *events: ev.Event, after: float = 0.0) -> list[ev.Action]:
        self.now += after
        for event in events:
            self.machine.feed(event, self.now)
        self.asked = self.machine.advance(self.now)
        return self.asked

    def name(self, index: int, thread: int = 0) -> str:
        return identities(self.view.host, index)[thread]

    def cpu(self, index: int, *, online: bool, thread: int = 0) -> GuestCpu:
        return GuestCpu(index * self.threads + thread, self.name(index, thread), online)

    def settled(
        self,
        index: int,
        status: str,
        *,
        online: bool | None,
        thread: int = 0,
        request: int = 1,
        reason: Reason | None = None,
    ) -> ev.CpuSettled:
        observed = None if online is None else self.cpu(index, online=online, thread=thread)
        result = CpuResult(self.name(index, thread), CpuStatus(status), reason, observed, 0.1)
        return ev.CpuSettled(self.session, request, result)

    def looked(self, *filled: int, status: str = "running") -> ev.HostLooked:
        return ev.HostLooked(host(len(self.view.slots), filled, threads=self.threads, status=status), self.now)

    def snapshot(self, *cpus: GuestCpu) -> ev.GuestLooked:
        return ev.GuestLooked(self.session, GuestView(1, "b", "i", cpus))

    def listed(self, *cpus: GuestCpu) -> list[ev.Action]:
        """The answer to the look at the guest that is under way."""
        assert ev.DoLookGuest() in self.asked, self.asked
        return self.tell(
            ev.GuestLooked(self.session, GuestView(1, "b", "i", (self.cpu(0, online=True), *cpus)), self.now)
        )

    def of(self, kind: type[ev.Action]) -> list[ev.Action]:
        return [action for action in self.asked if isinstance(action, kind)]

    def over(self) -> bool:
        return self.machine.finished

    @property
    def slot(self) -> SlotResult:
        (slot,) = self.machine.result(self.now).slots
        return slot


def unplug(threads: int = 1) -> Step:
    return Step(vm(3, {0, 1}, threads=threads), "unplug", "1")


def plug(**limits: float) -> Step:
    return Step(vm(3, {0}), "plug", "1", limits=Limits(**limits))  # type: ignore[arg-type]


def requests(step: Step) -> list[ev.DoSetOnline]:
    """What the agent was just asked to switch."""
    return [action for action in step.asked if isinstance(action, ev.DoSetOnline)]


# --- a CPU of which the guest was never told --------------------------------------------------------------------------


def reverted(operation: str = "scale", *slots: str, count: int | None = 2) -> Step:
    """QEMU has slots 0 and 1; the guest, as of a snapshot that was loaded, has only ever heard of slot 0 (F5)."""
    return Step(vm_reverted(), operation, *slots, count=None if slots else count, limits=Limits(timeout=60.0))


def vm_reverted() -> VmView:
    view = host(3, {0, 1})
    return join(view, guest(view, {0}), agent=INFO)


def not_noticed(step: Step) -> ev.DoSetOnline:
    """The guest's list shows no such CPU: the wait for it ends, and its removal begins."""
    step.listed()
    assert step.of(ev.DoCancel) == [ev.DoCancel(1)]
    step.tell(ev.RequestEnded("s1", 1, None))
    (down,) = requests(step)
    return down


def taken_out() -> tuple[Step, int]:
    """A CPU that the guest never heard of is out, and device_add was sent again; the request to bring that one up."""
    step = reverted()
    step.tell(after=Limits().notice_grace)
    down = not_noticed(step)
    step.tell(step.settled(1, "absent", online=None, request=down.request), step.snapshot(step.cpu(0, online=True)))
    step.tell(ev.RequestEnded("s1", down.request, None), after=1.0)
    step.listed()
    step.tell(ev.UnplugReturned(1, None), step.looked(0), after=0.1)
    assert step.of(ev.DoPlug) == [ev.DoPlug(1)]
    up = next(action.request for action in requests(step) if action.online)
    step.listed()
    return step, up
