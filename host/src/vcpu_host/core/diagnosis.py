# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl doctor``: what stands in the way of resizing a VM, told from what both sides show, with each fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from . import codes, descriptors
from .channel import no_channel, no_socket
from .finding import Finding, Level
from .guest import AgentInfo
from .model import SlotState
from .owner import disagreements, record_alone
from .planning import smt
from .planning.obstacles import blocked
from .proof import no_slot_explains
from .reason import Reason
from .run_states import not_running
from .text import cpu_count
from .view import VmView, in_guest, removal_stuck


def diagnose(view: VmView) -> tuple[Finding, ...]:
    """Return everything that can be told from one look at both sides."""
    return tuple(finding for check in _CHECKS for finding in check(view))


def _qemu(view: VmView) -> Iterator[Finding]:
    host = view.host
    yield Finding(
        Level.OK, codes.QEMU, f"QEMU {host.version_text}, machine {host.machine}, {host.accel}, {host.status}"
    )
    if not host.running:
        why = not_running(host)
        yield Finding(Level.PROBLEM, why.code, why.text, why.hint)
    elif host.migrating:
        yield Finding(
            Level.WARNING,
            codes.MIGRATING,
            f"the VM is being migrated (query-migrate: {host.migration}): nothing is plugged or unplugged",
            "repeat it then, on the side that runs",
        )


def above_recommended(view: VmView, recommended: int | None) -> Iterator[Finding]:
    """Yield that the VM may have more vCPUs than KVM recommends on this host.

    KVM recommends no more than this host's QEMU is told (KVM_CAP_NR_VCPUS: mostly the host's CPUs). QEMU warns of that
    at its start, and goes on (accel/kvm/kvm-all.c, kvm_init).
    """
    if view.host.accel == "kvm" and recommended is not None and view.possible_vcpus > recommended:
        yield Finding(
            Level.NOTE,
            codes.KVM_RECOMMENDS,
            f"the VM may have {view.possible_vcpus} vCPUs, and KVM recommends {recommended} at most on this host: more "
            "work, but share the host's CPUs",
        )


def _open_ends(view: VmView) -> Iterator[Finding]:
    if view.record_trouble is not None:
        yield Finding(Level.PROBLEM, view.record_trouble.code, view.record_trouble.text, view.record_trouble.hint)
    pending = [f"{slot.pending.kind} of slot {slot.index}" for slot in view.slots if slot.pending is not None]
    if pending:
        yield Finding(
            Level.WARNING,
            codes.PENDING,
            f"earlier operations have not come to their end: {', '.join(pending[:8])}",
            "the same command once more continues; vcpuctl list shows since when",
        )


def _hotplug(view: VmView) -> Iterator[Finding]:
    if view.host.no_hotplug is not None:
        yield Finding(Level.PROBLEM, codes.NO_HOTPLUG, view.host.no_hotplug.text, view.host.no_hotplug.hint)
        return
    empty = sum(not slot.filled for slot in view.host.slots)
    if empty == 0 and view.plugged_vcpus == view.possible_vcpus:
        removable = any(slot.not_removable is None for slot in view.slots)
        level = Level.NOTE if removable else Level.PROBLEM
        yield Finding(
            level,
            codes.NO_FREE_SLOT,
            f"all {view.possible_vcpus} possible vCPUs are plugged: there is nothing left to plug",
            "start the VM with -smp N,maxcpus=M, M being the most it may ever have",
        )
    else:
        yield Finding(
            Level.OK, codes.SLOTS, f"{view.plugged_vcpus} of {view.possible_vcpus} possible vCPUs are plugged"
        )
    if view.host.owner is not None:
        return
    fixed = [slot for slot in view.slots if slot.slot.filled and slot.slot.device_id is None and slot.index != 0]
    if fixed:
        yield Finding(
            Level.NOTE,
            codes.BOOT_CPUS,
            f"slots {', '.join(str(slot.index) for slot in fixed[:8])} hold CPUs of -smp: unplugging them works, but a "
            "migration's target then needs a smaller -smp and -device lines (vcpuctl export has them)",
            "start with -smp 1,maxcpus=M and give the other CPUs as -device lines with ids",
        )


def _barred(view: VmView) -> Iterator[Finding]:
    """Yield the empty slots that no plug will be tried for, by reason."""
    if view.host.no_hotplug is not None:
        return
    alike: dict[str, list[tuple[int, Reason]]] = {}
    for index, reason in blocked(view, by_guest=True).items():
        if not view.host.slots[index].leaving and reason.code != codes.SMT_OFF:  # told by themselves
            alike.setdefault(reason.code, []).append((index, reason))
    for code, found in alike.items():
        first = found[0][1]
        level = Level.WARNING if code == codes.ID_TAKEN else Level.PROBLEM  # numbers find other slots
        yield Finding(level, code, f"{_which([index for index, _ in found])}: {first.text}", first.hint)


def _which(indices: Sequence[int]) -> str:
    if len(indices) == 1:
        return f"slot {indices[0]} cannot be filled"
    names = ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")
    return f"{len(indices)} empty slots cannot be filled ({names})"


def _owner(view: VmView) -> Iterator[Finding]:
    if view.host.owner is not None:
        yield Finding(Level.OK, codes.OWNER, f"{view.host.owner.name} owns the VM, and is asked for all changes")
        if view.host.owner.record_alone:
            unseen = record_alone()
            yield Finding(Level.NOTE, unseen.code, "QEMU itself is not looked at, only the owner's record", unseen.hint)
        if (no := view.host.owner.refuses) is not None:
            yield Finding(Level.PROBLEM, no.code, no.text, no.hint)
        yield from disagreements(view.host)


def _known_bugs(view: VmView) -> Iterator[Finding]:
    yield from view.platform.known_bugs(view.host)


def _descriptors(view: VmView) -> Iterator[Finding]:
    yield descriptors.found(view.host.descriptors, view.host.accel)


def _channel(view: VmView) -> Iterator[Finding]:
    channel = view.host.channel
    if view.host.owner is None:  # else the owner has the way to it, and who dials tells what is in it
        yield from _socket(view)
    told = view.agent is not None or (channel is None and view.host.owner is None)
    if not told and view.agent_trouble is not None and view.agent_trouble.code != codes.NO_SOCKET:
        yield Finding(Level.PROBLEM, view.agent_trouble.code, view.agent_trouble.text, view.agent_trouble.hint)


def _socket(view: VmView) -> Iterator[Finding]:
    channel = view.host.channel
    if channel is None:
        why = no_channel(view.platform.serial_device)
        yield Finding(Level.PROBLEM, why.code, why.text, why.hint)
        return
    if channel.socket is None and not channel.name_withheld:
        why = no_socket(channel)
        yield Finding(Level.PROBLEM, why.code, why.text, why.hint)
    if channel.device_id is None:
        yield Finding(
            Level.NOTE,
            codes.PORT_WITHOUT_ID,
            "the agent's port has no id, so QEMU does not report its opening and closing (VSERPORT_CHANGE)",
            "-device virtserialport,id=vcpuctl,...",
        )


def _load(agent: AgentInfo) -> Iterator[Finding]:
    """Yield whether vCPUs could follow the guest's load (vcpuctl autoscale)."""
    told = agent.load
    if told is None:
        text = "vcpud is of a version that does not tell the guest's load, so autoscaling cannot follow it"
        yield Finding(Level.NOTE, codes.LOAD_UNSUPPORTED, text, "update vcpu-guest in the guest")
    elif not told.allowed:
        text = "the guest's administrator does not let vcpud tell the load, so autoscaling cannot follow it"
        yield Finding(Level.NOTE, codes.LOAD_FORBIDDEN, text, "load = true in /etc/vcpud/vcpud.conf allows it")
    elif not agent.tells_load:
        text = "vcpud cannot read the guest's /proc/stat, so autoscaling cannot follow its load"
        yield Finding(Level.NOTE, codes.LOAD_UNSUPPORTED, text, "compare vcpud's unit with the package's")
    elif not told.pressure:
        instead = "wait times of its run queues" if told.run_queues else "the tasks that could run at the moment"
        text = f"the guest's kernel has no PSI: autoscaling goes by {instead}"
        yield Finding(
            Level.NOTE, codes.LOAD_PARTLY, text, "psi=1 on the guest's kernel command line, if it is built in"
        )


def _ejection(agent: AgentInfo) -> Iterator[Finding]:
    if agent.eject_gate == "closed":
        yield Finding(Level.OK, codes.EJECT_GATE, "vcpud lets the guest eject a CPU only when it has agreed to that")
    elif agent.eject_gate == "open":
        yield Finding(
            Level.WARNING,
            codes.EJECT_GATE_OPEN,
            "vcpud keeps the eject gate, and it is open: an unplug ended a moment ago, or somebody else opened it",
            "ask again in a minute; systemctl restart vcpud in the guest closes it",
        )
    elif agent.environment.eject_enabled is False:
        yield Finding(
            Level.PROBLEM,
            codes.EJECT_DISABLED,
            "the guest refuses to eject CPUs (/sys/firmware/acpi/hotplug/processor/enabled is 0)",
            "echo 1 into that file in the guest, or let vcpud keep it: eject_gate = true in /etc/vcpud/vcpud.conf",
        )


def _agent(view: VmView) -> Iterator[Finding]:
    agent = view.agent
    if agent is None:
        return
    yield Finding(
        Level.OK,
        codes.AGENT,
        f"vcpud {agent.version} (protocol {agent.protocol}, {agent.platform}, events from {agent.event_source}), "
        f"Linux {agent.kernel} {agent.arch}",
    )
    env = agent.environment
    if env.writable is False:
        yield Finding(
            Level.PROBLEM,
            codes.AGENT_NO_RIGHTS,
            f"vcpud may not write what it has to in the guest: {'; '.join(env.unwritable[:4])}",
            "EROFS: /sys is read-only for it: see the drop-ins of vcpud.service (systemctl cat vcpud; "
            "ReadWritePaths=/sys/devices/system/cpu), or give its container a writable /sys; EACCES or EPERM: the "
            "guest's audit log has who denies it (ausearch -m avc)",
        )
    possible = cpu_count(env.possible)
    if not view.platform.understood_by(agent.platform):
        why_not = view.platform.misunderstanding(agent)
        yield Finding(Level.PROBLEM, why_not.code, why_not.text, why_not.hint)
    elif possible and possible < view.possible_vcpus:
        cause = view.platform.few_possible(view.host, agent)
        text = f"the guest's kernel can have {possible} CPUs, the VM {view.possible_vcpus}: more cannot come online"
        yield Finding(Level.PROBLEM, codes.GUEST_POSSIBLE, f"{text}; {cause.why}" if cause.why else text, cause.fix)
    yield from _load(agent)
    yield from _ejection(agent)
    for code, value in ((codes.ISOLCPUS, env.isolated), (codes.NOHZ_FULL, env.nohz_full)):
        if value:
            yield Finding(
                Level.NOTE,
                code,
                f"the guest isolates CPUs ({code}: {value}): its last housekeeping CPU cannot be taken offline",
            )
    for rule in env.auto_online_rules:
        yield Finding(
            Level.NOTE,
            codes.AUTO_ONLINE_RULE,
            f"a udev rule in the guest brings CPUs online by itself ({rule}): harmless",
        )
    if smt.is_off(env):
        text = "SMT is switched off in the guest: of each core, all threads but the first stay offline"
        yield Finding(Level.WARNING, codes.SMT_OFF, text, smt.remedy(env))


def _hearing(view: VmView) -> Iterator[Finding]:
    if (why := view.guest_trouble) is not None:
        yield Finding(Level.PROBLEM, why.code, why.text, why.hint)


def _slots(view: VmView) -> Iterator[Finding]:
    for state, code, fix in (
        (SlotState.PLUGGED, codes.SLOTS_PLUGGED, "see the guest's kernel log; vcpuctl scale finishes or removes it"),
        (SlotState.OFFLINE, codes.SLOTS_OFFLINE, "vcpuctl online SLOT, or vcpuctl unplug --slot SLOT"),
        (SlotState.PARTIAL, codes.SLOTS_PARTIAL, "vcpuctl online SLOT"),
    ):
        found = [str(slot.index) for slot in view.slots if slot.state is state]
        if found:
            yield Finding(
                Level.WARNING,
                code,
                f"slots that are {in_guest(state)}, not online: {', '.join(found[:16])}",
                fix,
            )
    for slot in view.host.slots:
        if slot.leaving:
            stuck = removal_stuck(slot)
            yield Finding(Level.PROBLEM, stuck.code, stuck.text, stuck.hint)
    for index, ost in view.host.ost.items():
        reason = view.platform.refusal(ost)
        if reason is not None and index < len(view.slots) and view.slots[index].slot.filled:
            yield Finding(Level.WARNING, reason.code, f"slot {index}: last unplug: {reason.text}", reason.hint)
    if view.unexplained:
        why = no_slot_explains(view.unexplained)
        yield Finding(Level.PROBLEM, why.code, why.text, why.hint)
    elif view.strangers:
        numbers = ", ".join(f"cpu{cpu.number}" for cpu in view.strangers[:8])
        yield Finding(
            Level.WARNING, codes.UNPLUGGED_CPUS, f"the guest shows CPUs of slots that are empty in QEMU: {numbers}"
        )


def _nodes(view: VmView) -> Iterator[Finding]:
    """Yield which CPUs are of another node in the guest than in QEMU.

    Linux numbers nodes as it meets them in the firmware's table, so only who is with whom can be compared. See
    drivers/acpi/numa/srat.c, acpi_map_pxm_to_node.
    """
    in_guest: dict[int, int] = {}
    in_qemu: dict[int, int] = {}
    differing = []
    for slot in view.slots:
        for thread in slot.threads:
            cpu, node = thread.cpu, slot.slot.node
            if node is None or cpu is None or cpu.node is None or not cpu.online:
                continue
            if (in_guest.setdefault(node, cpu.node), in_qemu.setdefault(cpu.node, node)) != (cpu.node, node):
                differing.append(f"cpu{cpu.number} (slot {slot.index}): {node} in QEMU, {cpu.node} in the guest")
    if differing:
        yield Finding(
            Level.WARNING,
            codes.NODE_DIFFERS,
            f"CPUs that are of another NUMA node in the guest than in QEMU: {'; '.join(differing[:8])}",
            "see the guest's kernel log (SRAT, numa): numa=off on its command line, or a kernel without NUMA",
        )


def _programs(view: VmView) -> Iterator[Finding]:
    """Yield what the guest's programs make of its CPUs, if somebody has asked."""
    if view.agent is not None and view.agent.environment.partition_isolated:
        text = f"cgroup partitions of the guest isolate CPUs: {view.agent.environment.partition_isolated}"
        yield Finding(Level.NOTE, codes.ISOLATED_CPUS, text, "ordinary work does not use them; pin what is to")
    if view.agent is not None and view.agent.environment.keeps_affinity:
        text = "vcpud gives threads back the masks that a change of CPUs has widened (keep_affinity)"
        yield Finding(Level.OK, codes.AFFINITY_PUT_BACK, text)
    seen = view.programs
    if seen is None:
        return
    if seen.trouble is not None:
        text = f"nobody can tell what the guest's programs make of its CPUs: {seen.trouble.text}"
        yield Finding(Level.NOTE, codes.WORKLOAD_UNSEEN, text, seen.trouble.hint)
    if seen.workload is not None:
        from .workload.unused import findings  # late: only doctor looks at programs so

        yield from findings(seen.workload)


_CHECKS: tuple[Callable[[VmView], Iterator[Finding]], ...] = (
    _qemu,
    _owner,
    _hotplug,
    _barred,
    _open_ends,
    _known_bugs,
    _descriptors,
    _channel,
    _agent,
    _hearing,
    _slots,
    _nodes,
    _programs,
)
