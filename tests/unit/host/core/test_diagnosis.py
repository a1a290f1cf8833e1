# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest
from kit.sim.views import INFO, guest, host, identities, slot
from vcpu_host.core.diagnosis import above_recommended, diagnose
from vcpu_host.core.finding import Finding, Level
from vcpu_host.core.guest import AgentInfo, Environment, GuestCpu, GuestView
from vcpu_host.core.model import Channel, HostView, Ost
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import join
from vcpu_host.documents import of_finding


def _found(
    view: HostView, *, agent: AgentInfo | None = INFO, online: set[int] | None = None, offline: set[int] | None = None
) -> dict[str, Finding]:
    filled = {s.index for s in view.slots if s.filled}
    away = offline or set()
    looked = guest(view, filled - away if online is None else online, away)
    return {finding.code: finding for finding in diagnose(join(view, looked, agent=agent))}


def _troubles(found: dict[str, Finding]) -> set[str]:
    return {code for code, finding in found.items() if finding.level in (Level.WARNING, Level.PROBLEM)}


def _environment(**values: object) -> AgentInfo:
    return INFO._replace(environment=INFO.environment._replace(**values))  # type: ignore[arg-type]


def test_a_healthy_vm_has_nothing_to_mend() -> None:
    found = _found(host(4, {0}))
    assert set(found) == {"qemu", "slots", "descriptors", "agent"}
    assert all(finding.level is Level.OK for finding in found.values())


def test_every_finding_that_matters_says_what_to_do() -> None:
    slots = (slot(0, boot=True, type_="max-x86_64-cpu"), slot(1), slot(2), slot(3, filled=False))
    view = host(4, slots=slots, status="paused", accel="tcg", version=(7, 2, 0), ost={1: Ost(3, 0x82)})
    agent = _environment(possible="0-1", eject_enabled=False, smt_control="off")
    found = _found(view, agent=agent, online={0}, offline={1})
    assert len(_troubles(found)) >= 8
    for finding in found.values():
        assert finding.text
        if finding.level is Level.PROBLEM:
            assert finding.fix, finding.code


def test_a_vm_that_does_not_run_is_a_problem() -> None:
    assert _found(host(4, status="paused"))["vm-not-running"].level is Level.PROBLEM


def test_a_migration_under_way_is_a_warning() -> None:
    assert _found(host(4)._replace(migration="active"))["migrating"].level is Level.WARNING
    assert "migrating" not in _found(host(4)._replace(migration="completed"))


def test_a_cpu_on_another_node_in_the_guest_than_in_qemu_is_a_warning_that_names_it() -> None:
    slots = tuple(slot(i, props={"core-id": i, "node-id": i % 2}, boot=i == 0) for i in range(4))
    view = host(4, slots=slots)
    looked = guest(view, {0, 1, 2, 3})
    nodes = (0, 0, 0, None)  # the last is not known
    cpus = tuple(replace(cpu, node=node) for cpu, node in zip(looked.cpus, nodes, strict=True))
    found = {f.code: f for f in diagnose(join(view, looked._replace(cpus=cpus), agent=INFO))}
    assert found["node-differs"].level is Level.WARNING
    assert found["node-differs"].text.endswith(": cpu1 (slot 1): 1 in QEMU, 0 in the guest")
    for first in (0, 1):  # Linux numbers nodes by itself: who is with whom is what counts
        alike = tuple(replace(cpu, node=(cpu.number + first) % 2) for cpu in looked.cpus)
        assert "node-differs" not in {f.code for f in diagnose(join(view, looked._replace(cpus=alike), agent=INFO))}


def test_a_machine_without_hotplug_says_so_in_qemus_words() -> None:
    found = _found(host(2, {0, 1}, no_hotplug=Reason("no-hotplug", Origin.QEMU, "not on this machine", "use q35")))
    assert (found["no-hotplug"].text, found["no-hotplug"].fix) == ("not on this machine", "use q35")
    assert "slots" not in found


def test_a_full_vm_is_a_problem_only_if_nothing_can_be_unplugged() -> None:
    assert _found(host(2, {0, 1}))["no-free-slot"].level is Level.NOTE
    assert _found(host(1, {0}))["no-free-slot"].level is Level.PROBLEM


def test_cpus_of_smp_beyond_the_first_are_noted() -> None:
    assert "slots 1, 2 hold" in _found(host(4, {0, 1, 2}, boot={0, 1, 2}))["boot-cpus"].text


@pytest.mark.parametrize(
    ("version", "total", "accel", "codes"),
    [
        ((7, 2, 0), 8, "tcg", {"tcg-flat-apic", "tcg-replug"}),
        ((7, 2, 0), 9, "tcg", {"tcg-replug"}),
        ((9, 2, 0), 8, "tcg", {"tcg-replug"}),
        ((10, 0, 0), 8, "tcg", {"tcg-plug-budget"}),
        ((7, 2, 0), 8, "kvm", set()),
    ],
)
def test_each_qemus_bugs_under_tcg_are_named(
    version: tuple[int, int, int], total: int, accel: str, codes: set[str]
) -> None:
    assert _troubles(_found(host(total, version=version, accel=accel))) == codes


def test_cpu_max_under_tcg_burns_a_host_cpu() -> None:
    slots = (slot(0, boot=True, type_="max-x86_64-cpu"), slot(1, filled=False))
    assert "tcg-mwait" in _found(host(2, slots=slots, accel="tcg"))
    assert "tcg-mwait" not in _found(host(2, slots=slots, accel="kvm"))


def test_a_missing_channel_comes_with_the_device_lines_to_add() -> None:
    view = host(2)._replace(channel=None)
    found = {finding.code: finding for finding in diagnose(join(view, None))}
    assert "virtserialport" in found["no-channel"].fix


def test_a_channel_without_socket_or_id_is_told() -> None:
    view = host(2, channel=Channel(None, guest_open=True))
    found = _found(view)
    assert found["no-socket"].level is Level.PROBLEM
    assert found["port-without-id"].level is Level.NOTE


def test_an_agent_that_cannot_be_asked_is_told_with_its_remedy() -> None:
    trouble = Reason("agent-absent", Origin.AGENT, "nobody has the port open", "start vcpud")
    found = {finding.code: finding for finding in diagnose(join(host(2), None, agent_trouble=trouble))}
    assert (found["agent-absent"].level, found["agent-absent"].fix) == (Level.PROBLEM, "start vcpud")


@pytest.mark.parametrize(
    ("possible", "short"),
    [
        ("0-3", False),
        ("0-2", True),
        ("0,2-3", True),
        ("0-1,3-4", False),
        ("", False),
        ("nonsense", False),
        ("0-", False),
    ],
)
def test_a_guest_kernel_with_too_little_room_is_a_problem(possible: str, short: bool) -> None:
    assert ("guest-possible" in _found(host(4), agent=_environment(possible=possible))) is short


def test_what_in_the_guest_bears_on_hotplug_is_told() -> None:
    agent = _environment(
        eject_enabled=False,
        isolated="2-3",
        nohz_full="3",
        auto_online_rules=("80-hotplug.rules",),
        smt_control="forceoff",
    )
    found = _found(host(4), agent=agent)
    assert {"eject-disabled", "isolcpus", "nohz_full", "auto-online-rule", "smt-off"} <= set(found)
    assert found["auto-online-rule"].level is Level.NOTE
    unknown = _found(host(4), agent=INFO._replace(environment=Environment()))
    assert not _troubles(unknown)


def test_smt_that_is_forced_off_is_not_advised_to_be_switched_on() -> None:
    forced = _found(host(4), agent=_environment(smt_control="forceoff"))["smt-off"]
    assert "smt/control" not in forced.fix
    assert "nosmt=force" in forced.fix
    assert "smt/control" in _found(host(4), agent=_environment(smt_control="off"))["smt-off"].fix


def test_an_agent_that_may_not_write_is_a_problem_before_anything_is_asked_of_it() -> None:
    path = "/sys/devices/system/cpu/cpu1/online"
    agent = _environment(writable=False, unwritable=(f"{path}: EROFS",))
    found = _found(host(4), agent=agent)["agent-no-rights"]
    assert found.level is Level.PROBLEM
    assert f"{path}: EROFS" in found.text
    assert "ReadWritePaths" in found.fix
    for writable in (True, None):
        assert "agent-no-rights" not in _found(host(4), agent=_environment(writable=writable))


def test_a_gate_that_vcpud_keeps_closed_is_no_trouble_and_one_that_another_opened_is() -> None:
    keeper = _environment(eject_enabled=False)._replace(capabilities=("eject-gate",))
    closed = _found(host(4), agent=keeper)
    assert closed["eject-gate"].level is Level.OK
    assert not _troubles(closed)
    opened = _found(host(4), agent=INFO._replace(capabilities=("eject-gate",)))
    assert opened["eject-gate-open"].level is Level.WARNING
    assert (INFO.eject_gate, keeper.eject_gate) == (None, "closed")


def test_slots_that_are_not_online_are_named_by_state() -> None:
    view = host(5, {0, 1, 2})
    found = _found(view, online={0}, offline={1})
    assert found["slots-plugged"].text == "slots that are unknown to the guest, not online: 2"
    assert found["slots-offline"].text.endswith(": 1")


def test_a_half_lit_core_is_named() -> None:
    view = host(2, {0, 1}, threads=2)
    dark = identities(view, 1)[1]
    looked = guest(view, {0, 1}, cpus={dark: GuestCpu(3, dark, False)})
    assert "slots-partial" in {finding.code for finding in diagnose(join(view, looked, agent=INFO))}


def test_the_last_refusal_of_each_plugged_slot_is_recalled() -> None:
    found = _found(host(4, {0, 1}, ost={1: Ost(3, 0x82), 2: Ost(3, 0x82), 99: Ost(3, 0x82)}))
    assert found["eject-busy"].text.startswith("slot 1:")
    assert "eject-busy" not in _found(host(4, {0, 1}, ost={1: Ost(3, 0), 0: Ost(1, 0)}))


def test_guest_cpus_of_empty_slots_are_named() -> None:
    view = host(3, {0})
    looked = guest(host(3, {0, 1}), {0, 1})
    found = {finding.code: finding for finding in diagnose(join(view, looked, agent=INFO))}
    assert found["unplugged-cpus"].text.endswith("cpu1")


def test_guest_cpus_that_no_slot_explains_are_a_problem() -> None:
    view = host(3, {0, 1})
    looked = GuestView(1, "b", "i", (*guest(view, {0}).cpus, GuestCpu(1, "acpi:\\_SB_.CP01", True)))
    found = {finding.code: finding for finding in diagnose(join(view, looked, agent=INFO))}
    assert found["unexplained-cpus"].level is Level.PROBLEM
    assert "cpu1 (acpi:\\_SB_.CP01)" in found["unexplained-cpus"].text
    assert "slots-plugged" not in found


def test_a_finding_is_json() -> None:
    assert of_finding(Finding(Level.NOTE, "code", "text")) == {
        "level": "note",
        "code": "code",
        "text": "text",
        "fix": "",
    }


@pytest.mark.parametrize(
    ("accel", "recommended", "said"), [("kvm", 2, True), ("kvm", 4, False), ("kvm", None, False), ("tcg", 2, False)]
)
def test_more_vcpus_than_kvm_recommends_are_a_note_under_kvm_alone(
    accel: str, recommended: int | None, *, said: bool
) -> None:
    view = host(4, {0}, accel=accel)
    found = list(above_recommended(join(view, guest(view, {0}), agent=INFO), recommended))
    assert [(finding.level, finding.code) for finding in found] == [(Level.NOTE, "kvm-recommends")] * said
    assert all("may have 4 vCPUs, and KVM recommends 2" in finding.text for finding in found)


def test_warnings_of_tcgs_traps_are_given_under_tcg_alone() -> None:
    slots = (slot(0, boot=True, type_="max-x86_64-cpu"), *(slot(index, filled=False) for index in (1, 2, 3)))
    for version in ((7, 2, 22), (10, 0, 13), (11, 1, 3)):
        for accel in ("tcg", "kvm"):
            found = _found(host(4, slots=slots, accel=accel, version=version))
            assert any(code.startswith("tcg-") for code in found) is (accel == "tcg"), (version, accel)
