# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from kit.sim.views import INFO, guest, host, identities, vm
from vcpu_host.core import codes
from vcpu_host.core.guest import GuestCpu, GuestView
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.model import HostView, SlotState
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import VmView, join, with_pending

_BUSY = Reason("last-cpu", Origin.GUEST, "the last one")
_PARKED = Reason(codes.SMT_OFF, Origin.GUEST, "SMT is off", errno="EPERM")


def _states(view: VmView) -> list[str]:
    return [str(slot.state) for slot in view.slots]


def _with(view: HostView, *cpus: GuestCpu) -> VmView:
    return join(view, GuestView(1, "boot", "instance", cpus), agent=INFO)


def test_every_state_of_a_single_thread_slot_is_told() -> None:
    view = host(6, {0, 1, 2, 3})
    shown = with_pending(join(view, guest(view, {0, 1}, {2})), [Intent(IntentKind.UNPLUG, 1, "vcpu-1", 0.0)])
    assert _states(shown) == ["online", "unplugging", "offline", "plugged", "empty", "empty"]


def test_without_a_guest_to_ask_a_filled_slot_is_unknown() -> None:
    trouble = Reason("agent-absent", Origin.AGENT, "nobody there")
    shown = join(host(2), None, agent_trouble=trouble)
    assert _states(shown) == ["unknown", "empty"]
    assert shown.online_vcpus is None
    assert shown.agent_trouble is trouble


def test_a_core_with_one_thread_online_is_partial() -> None:
    view = host(2, {0, 1}, threads=2)
    first, second = identities(view, 1)
    assert _states(_with(view, GuestCpu(0, first, True), GuestCpu(1, second, False)))[1] == "partial"
    assert _states(_with(view, GuestCpu(0, first, True)))[1] == "partial"
    assert _states(_with(view, GuestCpu(0, first, False)))[1] == "offline"
    assert _states(_with(view, GuestCpu(0, first, True), GuestCpu(1, second, True)))[1] == "online"


def test_a_thread_that_smt_off_parks_does_not_make_its_core_partial() -> None:
    view = host(1, {0}, threads=2)
    first, second = identities(view, 0)
    parked = GuestCpu(1, second, False, cannot_online=_PARKED)
    shown = _with(view, GuestCpu(0, first, True), parked)
    assert _states(shown) == ["online"]
    assert shown.slots[0].online_vcpus == 1
    assert _states(_with(view, GuestCpu(0, first, False), parked)) == ["offline"]
    broken = GuestCpu(1, second, False, cannot_online=Reason("bad-cpu", Origin.GUEST, "broken"))
    assert _states(_with(view, GuestCpu(0, first, True), broken)) == ["partial"]


def test_guest_cpus_are_told_apart_by_identity_and_never_by_number() -> None:
    view = host(4, {0, 3})
    (zero,), (three,) = identities(view, 0), identities(view, 3)
    shown = _with(view, GuestCpu(0, zero, True), GuestCpu(1, three, True))
    assert [slot.threads[0].cpu.number if slot.threads[0].cpu else None for slot in shown.slots] == [0, None, None, 1]


def test_a_guest_cpu_without_a_filled_slot_is_a_stranger_and_proves_nothing() -> None:
    view = host(3, {0})
    (zero,), (one,) = identities(view, 0), identities(view, 1)
    shown = _with(
        view, GuestCpu(0, zero, True), GuestCpu(1, one, True), GuestCpu(2, "acpi:made-up", True), GuestCpu(3, "", True)
    )
    assert [cpu.number for cpu in shown.strangers] == [1, 2, 3]
    assert [cpu.number for cpu in shown.unexplained] == [2, 3]
    assert shown.online_vcpus is None, "who is who cannot be told"
    assert shown.slots[1].state is SlotState.EMPTY


def test_a_cpu_of_a_slot_that_is_empty_leaves_no_doubt_about_the_others() -> None:
    view = host(3, {0, 2})
    (zero,), (one,) = identities(view, 0), identities(view, 1)
    shown = _with(view, GuestCpu(0, zero, True), GuestCpu(1, one, True))
    assert (shown.unexplained, shown.online_vcpus) == ((), 1)
    assert shown.slots[2].state is SlotState.PLUGGED


@pytest.mark.parametrize("name", ["acpi:\\_SB_.CP01", ""])
def test_a_cpu_is_not_said_to_be_missing_while_the_guest_shows_one_that_no_slot_explains(name: str) -> None:
    view = host(3, {0, 1})
    (zero,) = identities(view, 0)
    shown = _with(view, GuestCpu(0, zero, True), GuestCpu(1, name, True))
    assert [slot.state for slot in shown.slots] == [SlotState.ONLINE, SlotState.UNKNOWN, SlotState.EMPTY]


def test_vcpus_are_counted_by_thread() -> None:
    shown = vm(4, {0, 1}, {2}, threads=2)
    assert (shown.possible_vcpus, shown.plugged_vcpus, shown.online_vcpus) == (8, 6, 4)


def test_threads_bear_their_host_thread_ids_and_none_where_qemu_shows_fewer() -> None:
    view = host(2, {0, 1}, threads=2)
    shown = join(view, guest(view, {0, 1}))
    assert [thread.host_tid for thread in shown.slots[1].threads] == [9002, 9003]
    empty = join(host(2, {0}, threads=2), None)
    assert [thread.host_tid for thread in empty.slots[1].threads] == [None, None]


def test_why_a_slot_cannot_be_unplugged_is_told() -> None:
    view = host(3, {0, 1})
    (one,) = identities(view, 1)
    shown = join(view, guest(view, {0, 1}, cpus={one: GuestCpu(1, one, True, cannot_offline=_BUSY)}))
    codes = [slot.not_removable.code if slot.not_removable else None for slot in shown.slots]
    assert codes == ["boot-cpu", "last-cpu", "slot-empty"]


def test_what_keeps_an_offline_cpu_online_does_not_hold_it_back() -> None:
    view = host(2, {0, 1})
    (one,) = identities(view, 1)
    shown = join(view, guest(view, {0}, {1}, cpus={one: GuestCpu(1, one, False, cannot_offline=_BUSY)}))
    assert shown.slots[1].not_removable is None


def test_a_machine_that_no_platform_knows_is_shown_and_nothing_is_guessed() -> None:
    view = HostView((10, 0, 0), "virt", "sparc64", "running", "tcg", host(2, {0, 1}).slots)
    shown = join(view, GuestView(1, "b", "i", (GuestCpu(0, "x:0", True),)))
    assert _states(shown) == ["unknown", "unknown"]
    assert [cpu.number for cpu in shown.strangers] == [], "names say nothing of its slots"
    assert {slot.not_removable.code for slot in shown.slots if slot.not_removable} == {"unknown-platform"}
