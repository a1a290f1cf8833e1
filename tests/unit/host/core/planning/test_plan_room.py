# SPDX-License-Identifier: Apache-2.0
"""What the guest's kernel has no room for is not plugged, and why it has none is told and not guessed."""

from __future__ import annotations

from typing import Any

import pytest
from kit.sim.plans import codes, planned, steps
from kit.sim.views import INFO, guest, host
from vcpu_host.core.diagnosis import diagnose
from vcpu_host.core.finding import Finding
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.model import HostView
from vcpu_host.core.view import VmView, join, with_pending


def _found(view: VmView) -> dict[str, Finding]:
    return {finding.code: finding for finding in diagnose(view)}


_FEW = "0"  # /sys/devices/system/cpu/possible of Linux 6.12.117 under TCG, one CPU at boot


def _guest_with(
    view: HostView, *, listed: bool = True, kernel: str = "6.12.117+deb13-amd64", **environment: Any
) -> VmView:
    """The VM with an agent whose guest is so; ``listed``: its CPUs were asked for."""
    info = INFO._replace(kernel=kernel, environment=INFO.environment._replace(**environment))
    filled = {s.index for s in view.slots if s.filled}
    return join(view, guest(view, filled) if listed else None, agent=info)


@pytest.mark.parametrize("listed", [True, False])
def test_no_cpu_is_plugged_that_the_guests_kernel_has_no_room_for(listed: bool) -> None:
    """Linux under TCG, newest branches: one CPU at boot, and none can ever come."""
    seen = _guest_with(host(16, accel="tcg"), listed=listed, possible=_FEW)
    assert codes(planned(seen, "plug", 1)) == codes(planned(seen, "plug", None, "5")) == ["guest-possible"]
    if listed:
        assert codes(planned(seen, "scale", 2)) == ["guest-possible"]
        assert steps(planned(seen, "scale", 1)) == []
    reason = planned(seen, "plug", 1).refusals[0].reason
    assert "can have 1 CPUs and has 1: 1 more cannot come, none at most" in reason.text
    assert "only if it knows the hypervisor" in reason.text
    assert "TCG is none that it knows" in reason.text
    assert "vmport=on" in reason.hint
    assert "nr_cpus" not in reason.text + reason.hint


def test_as_many_are_plugged_as_the_guests_kernel_has_room_for() -> None:
    seen = _guest_with(host(8, {0, 1}), possible="0-3")
    assert steps(planned(seen, "plug", 2)) == [("plug", 2), ("plug", 3)]
    decided = planned(seen, "plug", 3)
    assert codes(decided) == ["guest-possible"]
    assert "3 more cannot come, 2 at most" in decided.refusals[0].reason.text
    assert steps(planned(_guest_with(host(8, {0, 1}), possible=""), "plug", 3))


def test_a_slot_that_qemu_has_filled_and_the_guest_has_not_needs_room_as_well() -> None:
    view = host(4, {0, 1})
    info = INFO._replace(environment=INFO.environment._replace(possible="0"))
    seen = join(view, guest(view, {0}), agent=info)
    assert codes(planned(seen, "scale", 2)) == ["guest-possible"]
    assert steps(planned(seen, "unplug", 1)) == [("unplug", 1)]
    offline = join(view, guest(view, {0}, {1}), agent=info)
    assert steps(planned(offline, "scale", 2)) == [("online", 1)]


def test_what_the_guest_has_counts_and_not_what_qemu_has() -> None:
    view = host(4, {0, 1})
    info = INFO._replace(environment=INFO.environment._replace(possible="0-1"))
    seen = join(view, guest(view, {0}), agent=info)
    assert steps(planned(seen, "plug", None, "2")) == [("plug", 2)]
    assert codes(planned(seen, "plug", None, "2", "3")) == ["guest-possible"]


def test_a_cpu_on_its_way_out_may_make_the_room_that_is_lacking() -> None:
    view = host(4, {0, 1})
    seen = with_pending(_guest_with(view, possible="0-1"), [Intent(IntentKind.UNPLUG, 1, "vcpu-1", 5.0, (9001,))])
    decided = planned(seen, "plug", None, "2")
    assert [refusal.reason.code for refusal in decided.refusals] == ["guest-possible"]
    assert [each.slot.index for each in decided.recover] == [1]


_KVM = {"hypervisor": True, "kvm": True}


@pytest.mark.parametrize(
    ("accel", "model", "kernel", "environment", "why", "fix"),
    [
        # Linux 6.12.117 and 6.12.118 under TCG and under KVM with kvm=off or -hypervisor: 0 hotplug CPUs (seen).
        ("tcg", _KVM, "6.12.117", {}, "TCG is none that it knows", "KVM; or an older guest kernel"),
        ("kvm", {**_KVM, "kvm": False}, "6.12.118", {}, "KVM is hidden from it (kvm=off)", "-cpu without kvm=off"),
        ("kvm", {**_KVM, "hypervisor": False}, "6.18.17", {}, "(hypervisor=off)", "-cpu without kvm=off"),
        ("kvm", {}, "7.2.13", {"hypervisor_flag": False}, "KVM is hidden from it", "-cpu without kvm=off"),
        ("kvm", _KVM, "7.2.13", {"kernel_arguments": ("nopv",)}, "nopv keeps it", "remove nopv"),
        # What limits the kernel by its own words comes first.
        ("tcg", _KVM, "6.12.117", {"kernel_arguments": ("nr_cpus=1",)}, "line has nr_cpus=1", "remove nr_cpus=1"),
        ("kvm", _KVM, "6.12.117", {"kernel_arguments": ("isolcpus=1", "nosmp")}, "line has nosmp", "remove nosmp"),
        ("kvm", _KVM, "6.12.117", {"kernel_arguments": ("maxcpus=0",)}, "line has maxcpus=0", "remove maxcpus=0"),
        ("tcg", _KVM, "6.1.0", {"kernel_arguments": ("maxcpus=2", "smt=1")}, "", "kernel log"),
        ("tcg", _KVM, "6.12.117", {"kernel_max": 0, "possible": "0"}, "TCG is none", "KVM; or"),
        ("kvm", _KVM, "6.12.117", {"kernel_max": 1, "possible": "0-1"}, "CONFIG_NR_CPUS", "larger CONFIG_NR_CPUS"),
        # Where none of that is so, nothing is made up: 6.1 counts all, and KVM that shows itself is known.
        ("tcg", _KVM, "6.1.0-56-amd64", {}, "", "kernel log"),
        ("kvm", _KVM, "6.12.117", {"hypervisor_flag": True}, "", "kernel log"),
        ("xen", {}, "6.12.117", {}, "", "kernel log"),
        ("tcg", _KVM, "none of ours", {}, "", "kernel log"),
    ],
)  # fmt: skip
def test_why_a_guest_has_no_room_is_told_as_far_as_it_shows_and_not_guessed(
    accel: str, model: dict[str, bool], kernel: str, environment: dict[str, Any], why: str, fix: str
) -> None:
    view = host(16, accel=accel)._replace(cpu_properties=model)
    seen = _guest_with(view, kernel=kernel, **{"possible": _FEW, **environment})
    finding = _found(seen)["guest-possible"]
    reason = planned(seen, "plug", 2).refusals[0].reason
    assert reason.code == "guest-possible"
    assert reason.hint == finding.fix
    assert fix in finding.fix
    for text in (finding.text, reason.text):
        if why:
            assert why in text
        else:
            assert text.endswith(("more cannot come online", "at most"))
    assert ("nr_cpus" in finding.text + finding.fix) is ("nr_cpus=1" in str(environment))
