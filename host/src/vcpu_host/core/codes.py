# SPDX-License-Identifier: Apache-2.0
"""The codes of reasons and findings, each with its meaning: what programs go by, stable from version to version.

On the host this table is the one place where a code is written out. The man page's section REASONS is made from it.
The agent in the guest shares no module with the host: it writes the codes of its own reasons out where it makes them
(``vcpu_guest.core.reasons`` and others). A test of the contract holds each of these against this table.

A reason may have a code that is not here: an agent that is newer than this vcpuctl may send one, and ``agent.convert``
takes it as it comes. So the code of a ``Reason`` is any string, and ``meaning`` is empty for an unknown one. Programs
that read documents have to expect the same.

These are strings, and not the members of an enum: a start of vcpuctl would pay 20 microseconds for each member
(docs/adr/0022-codes-and-documents.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self


class Code(str):
    """A code, equal to its text; ``meaning`` is one sentence."""

    __slots__ = ("meaning",)
    meaning: str

    def __new__(cls, text: str, meaning: str = "") -> Self:
        """Make the code of this text."""
        code = super().__new__(cls, text)
        code.meaning = meaning
        return code


def table() -> Mapping[str, Code]:
    """Return all codes of this module, by their text and in alphabetical order."""
    return {code: code for code in sorted(value for value in globals().values() if isinstance(value, Code))}


def meaning(code: str) -> str:
    """Return what a code means; empty for one that this vcpuctl does not know."""
    known = table().get(code)
    return known.meaning if known is not None else ""


# What the user has named: nothing was tried.
BAD_USAGE = Code("bad-usage", "The words or options make no command, or do not go together.")
BAD_SLOT = Code("bad-slot", "A slot selector is not understood, or this VM has no such slot.")
BAD_CALL = Code("bad-call", "Another process asked for something that this vcpuctl does not know.")
BAD_MAP = Code("bad-map", "The map for numa assign cannot be read, or does not place every slot once.")
BAD_GOALS = Code("bad-goals", "The file for apply cannot be read, or does not say how many vCPUs each VM is to have.")
BAD_EXPORT = Code("bad-export", "The file is no export that this vcpuctl reads.")
BAD_SOCKET = Code("bad-socket", "vcpuctl cannot listen on the path that it was given.")
BAD_VM_NAME = Code("bad-vm-name", "A VM's name has characters that no VM's name has.")
BAD_VM_FILE = Code("bad-vm-file", "The VM's file in vms.d cannot be read, or has settings that are none.")
NO_SUCH_VM = Code("no-such-vm", "No file in vms.d has this name.")
NO_VM = Code("no-vm", "Neither the command line nor the environment names a VM.")
MANY_VMS = Code("many-vms", "The command takes one VM, and the words name more.")
SAME_NAMES = Code("same-names", "Two of the names that were given are one VM.")
TWO_VMS = Code("two-vms", "The environment names two VMs.")
SAME_VM = Code("same-vm", "A migration's source and destination are one VM.")
NOT_UNIX = Code("not-unix", "The address is not a unix socket on which QEMU listens.")
BAD_METRICS = Code("bad-metrics", "Metrics are not offered at this address, or not written to this file.")
NOT_A_SOCKET = Code("not-a-socket", "The path is no socket.")
PATH_TOO_LONG = Code("path-too-long", "The path is longer than the path of a unix socket can be.")
NOT_QMP = Code("not-qmp", "The socket is not a QMP monitor.")
NOT_WRITTEN = Code("not-written", "The answer cannot be written to stdout; what was begun has ended.")
NOT_OUR_PORT = Code("not-our-port", "The socket given as --agent is not that of this VM's agent port.")

# Names that more than one side may use: what was asked for does not exist, or cannot be had.
OVER_MAX = Code("over-max", "The VM cannot have so many vCPUs.")
UNDER_MIN = Code("under-min", "The VM cannot have so few vCPUs: some cannot be unplugged.")
NOT_ENOUGH = Code("not-enough", "There are not as many vCPUs to plug or unplug as were asked for.")
GRANULARITY = Code("granularity", "Slots hold more than one vCPU each, and no set of them makes this number.")
NO_NODES = Code("no-nodes", "The VM has no NUMA nodes.")
NO_SUCH_NODE = Code("no-such-node", "The VM has no such NUMA node.")
NO_SUCH_SLOT = Code("no-such-slot", "QEMU's machine has no slot with these properties.")
SLOT_EMPTY = Code("slot-empty", "The slot is empty.")
SLOT_OCCUPIED = Code("slot-occupied", "Another CPU is in the slot.")

# What vms finds on this host.
NO_MONITOR = Code("no-monitor", "The process has no QMP monitor on a unix socket on which QEMU listens.")
SOCKET_ELSEWHERE = Code("socket-elsewhere", "The path that QEMU has for its monitor does not lead to it from here.")
SOCKET_TAKEN = Code("socket-taken", "Another QEMU was started later with the same path for its monitor.")
LIBVIRT_OWNED = Code("libvirt-owned", "libvirt started this QEMU and holds its monitor.")
NOT_READ = Code("not-read", "QEMU was given options that vms does not read, so there may be more than it tells.")
PROCESSES_UNSEEN = Code("processes-unseen", "Some processes of this host cannot be looked at by this user.")

# libvirt.
NO_LIBVIRT = Code("no-libvirt", "libvirt's Python module is not installed here.")
BAD_URI = Code("bad-uri", "libvirt does not understand the URI, or has no driver for it.")
LIBVIRT_DENIED = Code(
    "libvirt-denied",
    "libvirt, or ssh on the way there, does not let this user do that, or the connection is read-only.",
)
LIBVIRT_GONE = Code("libvirt-gone", "libvirt is not reached, or the connection to it was lost.")
LIBVIRT_SILENT = Code("libvirt-silent", "libvirt does not answer.")
LIBVIRT_ERROR = Code("libvirt-error", "libvirt refused a call, in words that vcpuctl does not know.")
LIBVIRT_TIMEOUT = Code("libvirt-timeout", "libvirt has waited long enough, and does not know how it ended.")
LIBVIRT_BUSY = Code("libvirt-busy", "Others keep the domain busy: libvirt has not begun what it was asked for.")
NO_SUCH_DOMAIN = Code("no-such-domain", "This libvirt has no domain of this name or UUID.")
DOMAIN_OFF = Code("domain-off", "The domain does not run here.")
LEFT_TO_LIBVIRT = Code("left-to-libvirt", "libvirt does this itself for the VMs that it owns.")
LIBVIRT_CORES = Code("libvirt-cores", "Cores of several threads are not plugged by way of libvirt.")
NOT_HOTPLUGGABLE = Code("not-hotpluggable", "libvirt does not let a CPU go that the domain was started with.")
NO_DEFINITION = Code("no-definition", "Nobody keeps a definition of the VM, which --config could change.")
NOT_KEPT = Code("not-kept", "The CPU is as wanted, and the VM's definition could not be changed to the same.")
BEHIND_LIBVIRT = Code("behind-libvirt", "A CPU was plugged behind libvirt's back: its record does not have it.")
RECORD_ALONE = Code("record-alone", "The guest and libvirt's record say so; QEMU itself was not looked at.")
RECORD_BEHIND = Code("record-behind", "A CPU is gone, and libvirt's record still has it.")

# QEMU's monitor, and what QEMU can do.
NO_SUCH_SOCKET = Code("no-such-socket", "The monitor's socket does not exist.")
NOT_PERMITTED = Code("not-permitted", "This user may not connect to the monitor's socket.")
MONITOR_BUSY = Code("monitor-busy", "Another client holds the monitor.")
QEMU_GONE = Code("qemu-gone", "QEMU has ended, or has closed its monitor.")
QEMU_SILENT = Code("qemu-silent", "QEMU does not answer in its monitor.")
QEMU_TOO_OLD = Code("qemu-too-old", "This QEMU lacks commands that vcpuctl needs.")
LEGACY_CPU_ADD = Code("legacy-cpu-add", "This QEMU can only plug CPUs with cpu-add, which knows no slots.")
NO_SUCH_COMMAND = Code("no-such-command", "QEMU lacks a command, or its monitor does not allow it.")
BAD_REPLY = Code("bad-reply", "QEMU's reply does not have the shape that its documentation promises.")
QEMU_ERROR = Code("qemu-error", "QEMU refused a command, in words that vcpuctl does not know.")
DEVICE_NOT_FOUND = Code("device-not-found", "QEMU has no device with this id.")
DUPLICATE_ID = Code("duplicate-id", "Two devices would have one id.")
OUT_OF_RANGE = Code("out-of-range", "QEMU says that a property of the CPU is out of range.")
PROPS_MISSING = Code("props-missing", "QEMU says that a property of the CPU is missing.")
WRONG_NODE = Code("wrong-node", "QEMU says that the slot belongs to another NUMA node.")
WRONG_TYPE = Code("wrong-type", "QEMU says that the slot takes another CPU type.")
UNPLUGGING = Code("unplugging", "QEMU says that the CPU's removal is under way.")
NO_HOTPLUG = Code("no-hotplug", "This machine type cannot plug CPUs.")
NO_UNPLUG = Code("no-unplug", "QEMU cannot unplug CPUs of this machine type.")
NO_ACPI = Code("no-acpi", "The VM was started with acpi=off, so its guest cannot hear of CPUs.")
BOOT_CPU = Code("boot-cpu", "The slot holds the boot CPU, which stays.")
ID_TAKEN = Code("id-taken", "Another device has the id that the slot's CPU would get.")
PHANTOM_VCPU = Code("phantom-vcpu", "An earlier device_add failed half way, and QEMU keeps a vCPU that is no CPU.")
REMOVAL_STUCK = Code("removal-stuck", "QEMU has emptied the slot, but the vCPU's thread has not ended.")
TAKEN_AWAY = Code("taken-away", "Somebody else emptied the slot while it was being brought up.")
APIC_ID_TOO_LARGE = Code("apic-id-too-large", "The CPU model has no x2APIC, which the slot's APIC id needs.")
APIC_ID_NOT_REMAPPED = Code("apic-id-not-remapped", "Linux needs interrupt remapping for the slot's APIC id.")
TCG_PLUG_BUDGET = Code("tcg-plug-budget", "Under TCG a QEMU process can start only maxcpus vCPUs in its life.")
KVM_RECOMMENDS = Code("kvm-recommends", "The VM may have more vCPUs than KVM recommends on this host.")
DESCRIPTORS = Code("descriptors", "How many file descriptors QEMU has open, and how many it may have.")
FEW_DESCRIPTORS = Code("few-descriptors", "QEMU has few file descriptors left, or too few for what was asked, or none.")
PLUG_NUMBERS = Code(
    "plug-numbers", "Under KVM QEMU has no number left for a new vCPU of a pseries machine, or may run out of them."
)
TCG_REPLUG = Code("tcg-replug", "QEMU before 10.0 under TCG does not survive a plug after an unplug.")
UNKNOWN_PLATFORM = Code("unknown-platform", "vcpuctl does not know how this machine's guests name their CPUs.")

# QEMU's preconfig state (numa assign).
PRECONFIG = Code("preconfig", "QEMU waits in preconfig, so there is no machine yet.")
NO_PRECONFIG = Code("no-preconfig", "This QEMU has no commands for preconfig.")
MACHINE_MADE = Code("machine-made", "QEMU has made the machine, and takes NUMA nodes only before.")
NODE_SET = Code("node-set", "The slot has another NUMA node already, which QEMU does not change.")
NODE_DIFFERS = Code("node-differs", "A slot or a CPU is on another NUMA node than it should be.")

# The VM's state.
VM_NOT_RUNNING = Code("vm-not-running", "The VM does not run, so its guest cannot do its part.")
VM_MOVED = Code("vm-moved", "The VM lives on in another QEMU, or is moving there.")
VM_AWAITED = Code("vm-awaited", "This QEMU waits for its VM, which is still to come by migration.")
VM_PAUSED = Code("vm-paused", "Time ran out while the VM was paused.")
VM_SHUTDOWN = Code("vm-shutdown", "The guest shut down in the middle of the operation.")
GUEST_RESTARTED = Code("guest-restarted", "The guest restarted in the middle of the operation.")
MIGRATING = Code("migrating", "The VM is being migrated.")

# What vcpuctl keeps on this host.
SERVICE_SILENT = Code("service-silent", "The process that has the VM, or serves it, does not answer.")
SERVICE_LOST = Code("service-lost", "The process that carried an operation out ended in the middle of it.")
TOO_MANY = Code("too-many", "The process that has the VM serves as many programs as it may.")
VM_OVERDUE = Code("vm-overdue", "Of many VMs this one did not end in its time, so it was waited for no longer.")
UNFORESEEN = Code("unforeseen", "vcpuctl itself failed, by a mistake in it.")
VM_BUSY = Code("vm-busy", "Another vcpuctl is at work on this VM.")
BAD_RECORD = Code("bad-record", "The record of what is pending on this VM cannot be read.")
NO_RECORD = Code("no-record", "The record of what is about to be done cannot be written.")
NO_JOURNAL = Code("no-journal", "The system's journal cannot be read: journalctl is not there, or has failed.")
JOURNAL_CLOSED = Code("journal-closed", "This user may not read the system's journal.")
NO_METRICS = Code("no-metrics", "The library that metrics are made with is not installed.")
UNSAFE_DIRECTORY = Code("unsafe-directory", "vcpuctl's directory or a file in it could be changed by others.")

# The agent's port and the link over it. Those that vcpu_proto.link gives are the same there.
NO_CHANNEL = Code("no-channel", "The VM has no port for the agent.")
NO_SOCKET = Code("no-socket", "The agent's port is not on a unix socket on which QEMU listens.")
PORT_UNREACHABLE = Code("port-unreachable", "The socket of the agent's port cannot be connected to.")
PORT_BUSY = Code("port-busy", "Another program holds the agent's port.")
NO_ANSWER = Code("no-answer", "Nobody answers at the agent's port.")
LINK_VERSION = Code("link-version", "The agent speaks another version of the link.")
PEER_GONE = Code("peer-gone", "QEMU closed the connection to the agent's port.")

# The agent.
NO_AGENT = Code("no-agent", "No agent answers.")
AGENT_LOST = Code("agent-lost", "The session with the agent broke off; another one may succeed at once.")
AGENT_ABSENT = Code("agent-absent", "No program in the guest has the agent's port open.")
AGENT_SLOW = Code("agent-slow", "The agent did not answer in time.")
AGENT_TOO_OLD = Code("agent-too-old", "The agent is too old for this vcpuctl.")
HOST_TOO_OLD = Code("host-too-old", "This vcpuctl is too old for the agent.")
AGENT_REJECTED = Code("agent-rejected", "The agent found the request itself wrong.")
AGENT_FAILED = Code("agent-failed", "The agent could not answer a request; others of the same session go on.")
AGENT_BAD_MESSAGE = Code("agent-bad-message", "The agent sent what the protocol does not allow.")
AGENT_INCONSISTENT = Code("agent-inconsistent", "The agent's answer contradicts what it says it observed.")
AGENT_PLATFORM = Code("agent-platform", "The agent takes its machine for another kind, so it cannot name the CPUs.")
AGENT_NO_RIGHTS = Code("agent-no-rights", "The agent may not write the files that switch CPUs.")

# How a slot's part of an operation ended.
ALREADY = Code("already", "The slot was as wanted before.")
NOT_BEGUN = Code("not-begun", "The operation ended before the slot's turn; nothing was changed for it.")
NOT_VERIFIED = Code("not-verified", "It is done as far as QEMU shows; the guest was not asked (--without-agent).")
INTERRUPTED = Code("interrupted", "The user stopped waiting.")
ATOMIC = Code("atomic", "The slot was taken back because not every slot could be done (--atomic).")
ADD_PENDING = Code("add-pending", "Time ran out: QEMU has not answered device_add.")
ARRIVAL_PENDING = Code("arrival-pending", "Time ran out: the guest has not taken notice of the CPU.")
ONLINE_PENDING = Code("online-pending", "Time ran out: the guest has not brought the CPU online.")
OFFLINE_PENDING = Code("offline-pending", "Time ran out: the guest has not taken the CPU offline.")
REMOVAL_PENDING = Code("removal-pending", "device_del was sent, and the guest has not ejected the CPU.")
REPLUG_FAILED = Code("replug-failed", "The CPU was taken out in order to be plugged again, and could not be plugged.")
REPLUG_PENDING = Code("replug-pending", "Time ran out: the CPU was taken out and not plugged again.")

# What the guest's firmware and kernel did.
FIRMWARE_NO_HOTPLUG = Code("firmware-no-hotplug", "The firmware runs with SMM and cannot take new CPUs.")
FIRMWARE_NO_UNPLUG = Code("firmware-no-unplug", "The firmware runs with SMM and cannot let CPUs go.")
GUEST_BOOTING = Code("guest-booting", "The agent's port is closed and the guest's ACPI is not up: it may be booting.")
GUEST_NOT_READY = Code("guest-not-ready", "The guest's ACPI is not up.")
GUEST_NO_ACPI = Code("guest-no-acpi", "The guest's kernel runs without ACPI, so CPUs cannot come or go.")
ACPI_DEAF = Code("acpi-deaf", "The guest's ACPI handles no event, so it hears of no CPU that comes or is to go.")
GUEST_POSSIBLE = Code("guest-possible", "The guest's kernel cannot have so many CPUs.")
GUEST_KEPT_IT = Code("guest-kept-it", "The guest could not release the CPU.")
GUEST_IGNORED = Code("guest-ignored", "The guest's firmware acknowledged the CPU, but its kernel shows none.")
GUEST_UNAWARE = Code("guest-unaware", "QEMU has a CPU that the guest does not show.")
UNEXPLAINED_CPUS = Code("unexplained-cpus", "The guest shows CPUs that no slot explains, so none can be told.")
COMES_BACK_ONLINE = Code("comes-back-online", "Something in the guest brings the CPU online again and again.")
EJECTED_ONLINE = Code("ejected-online", "The CPU was brought online just before it was ejected; it is gone.")
EJECT_DISABLED = Code("eject-disabled", "The guest does not allow CPUs to be ejected.")
EJECT_FAILED = Code("eject-failed", "The guest's kernel failed to eject the CPU.")
EJECT_IN_USE = Code("eject-in-use", "The guest says that the CPU is in use.")
EJECT_BUSY = Code("eject-busy", "The guest's kernel could not take the CPU offline in order to eject it.")
EJECT_DEPENDENCY = Code("eject-dependency", "The guest says that something depends on the CPU.")

# What the agent says of one CPU (vcpu_guest.core.reasons and the guest's platforms).
SMT_OFF = Code("smt-off", "The guest's SMT mode keeps the CPU offline.")
CPU0 = Code("cpu0", "The guest's kernel does not let cpu0 be switched.")
NO_CONTROL = Code("no-control", "The guest's kernel gives the CPU no online file.")
LAST_CPU = Code("last-cpu", "The CPU is the only one online.")
LAST_HOUSEKEEPING = Code("last-housekeeping", "The CPU is the last online one that is not isolated.")
VANISHED = Code("vanished", "The CPU was removed while it was being switched.")
REVERTED = Code("reverted", "Something else in the guest switched the CPU back.")
ONLINE_FORBIDDEN = Code("online-forbidden", "The guest's kernel forbids bringing the CPU online.")
OFFLINE_FORBIDDEN = Code("offline-forbidden", "The guest's kernel forbids taking the CPU offline.")
PLATFORM_FORBIDS = Code("platform-forbids", "The guest's platform cannot take CPUs offline.")
HOTPLUG_DISABLED = Code("hotplug-disabled", "The guest's kernel has CPU hotplug disabled for the moment.")
NO_MEMORY = Code("no-memory", "The guest's kernel has no memory for the CPU.")
BRING_UP_FAILED = Code("bring-up-failed", "The guest's kernel could not start the CPU.")
NOT_POSSIBLE = Code("not-possible", "The guest's kernel does not count the CPU among its possible ones.")
IRQ_VECTORS = Code("irq-vectors", "The remaining CPUs have no free interrupt vectors.")
DEADLINE_BANDWIDTH = Code("deadline-bandwidth", "The remaining CPUs cannot carry the SCHED_DEADLINE tasks.")
NOHZ_TIMEKEEPER = Code("nohz-timekeeper", "The CPU keeps time for the nohz_full CPUs.")
KERNEL_ERROR = Code("kernel-error", "The guest's kernel refused, with an errno that says nothing more.")
APIC_ID = Code("apic-id", "The guest's kernel cannot address the CPU's APIC id.")
DECONFIGURED = Code("deconfigured", "The CPU is in standby in the guest, not in its configuration.")
HOOK_REFUSED = Code("hook-refused", "A hook of the guest's administrator refused.")

# What an operation does to the guest's programs, and what keeps them from using its CPUs.
PINNED_THREADS = Code("pinned-threads", "Threads of programs are pinned to CPUs that all go.")
PARTITION_EMPTIED = Code("partition-emptied", "A cgroup partition loses its last CPU with tasks in it.")
CPUSET_FALLS_BACK = Code("cpuset-falls-back", "All CPUs of a cpuset go or are away: its tasks get those of its parent.")
UNIT_AFFINITY = Code("unit-affinity", "A unit of systemd's cannot start without its CPUs (CPUAffinity=).")
DEADLINE_THREADS = Code("deadline-threads", "Threads under SCHED_DEADLINE have reserved CPU time.")
MASKS_FORGOTTEN = Code("masks-forgotten", "The guest's kernel forgets masks in cpusets at any change of CPUs.")
AFFINITY_BROKEN = Code("affinity-broken", "The guest's kernel has given pinned threads all CPUs, for good.")
AFFINITY_ASLEEP = Code("affinity-asleep", "Sleeping threads are pinned to CPUs that are away.")
AFFINITY_PUT_BACK = Code("affinity-put-back", "The agent has given threads their masks back (keep_affinity).")
PARTITION_OVERLAP = Code("partition-overlap", "A cgroup partition shares CPUs with tasks outside of it.")
PARTITION_INVALID = Code("partition-invalid", "A cgroup partition has no CPU of its own any more.")
ISOLATED_CPUS = Code("isolated-cpus", "New CPUs are isolated, so ordinary work does not use them.")
NET_QUEUES = Code("net-queues", "A virtio network device uses fewer queue pairs than it could.")
CPU_QUOTA = Code("cpu-quota", "A quota allows less CPU time than there are CPUs.")
KDUMP_RELOADS = Code("kdump-reloads", "A udev rule loads the crash kernel anew for each CPU that comes or goes.")
WORKLOAD_UNSEEN = Code("workload-unseen", "Nobody can tell what an operation does to the guest's programs, or not all.")

# Findings of doctor, beside reasons.
QEMU = Code("qemu", "The QEMU that was looked at.")
SLOTS = Code("slots", "How many vCPUs are plugged; or source and destination have different numbers of slots.")
AGENT = Code("agent", "The agent that answers.")
FAULT = Code("fault", "A fault of vcpuctl's own, which its log tells more of.")
PENDING = Code("pending", "Earlier operations have not come to their end.")
NO_FREE_SLOT = Code("no-free-slot", "All possible vCPUs are plugged.")
OWNER = Code("owner", "Who owns the VM, and is asked for all changes.")
BOOT_CPUS = Code("boot-cpus", "Slots hold CPUs of -smp, which a migration's destination cannot get by device_add.")
SLOTS_PLUGGED = Code("slots-plugged", "Plugged CPUs are unknown to the guest.")
SLOTS_OFFLINE = Code("slots-offline", "Plugged CPUs are offline in the guest.")
SLOTS_PARTIAL = Code("slots-partial", "Of some slots not every thread is online.")
UNPLUGGED_CPUS = Code("unplugged-cpus", "The guest shows CPUs of slots that are empty in QEMU.")
PORT_WITHOUT_ID = Code("port-without-id", "The agent's port has no id, so QEMU does not report its opening.")
EJECT_GATE = Code("eject-gate", "The agent lets the guest eject a CPU only when it has agreed.")
EJECT_GATE_OPEN = Code("eject-gate-open", "The agent keeps the eject gate, and it is open.")
ISOLCPUS = Code("isolcpus", "The guest isolates CPUs (isolcpus).")
NOHZ_FULL = Code("nohz_full", "The guest isolates CPUs (nohz_full).")
AUTO_ONLINE_RULE = Code("auto-online-rule", "A udev rule in the guest brings CPUs online; that is harmless.")
PROCESS_UNSEEN = Code("process-unseen", "QEMU's process cannot be seen from here, so other monitors are not locked.")
OPEN_SOCKET = Code("open-socket", "Every user of this host can write to one of the VM's sockets.")
CPU_NUMBERS = Code("cpu-numbers", "QEMU migrates part of the CPUs' state by the order in which they came.")
TCG_CORE_UNPLUG = Code("tcg-core-unplug", "QEMU before 11.0 under TCG can die when cores with threads are unplugged.")
TCG_FLAT_APIC = Code("tcg-flat-apic", "QEMU before 9.0 under TCG loses interrupts when slots are filled with holes.")
TCG_MWAIT = Code("tcg-mwait", "Under TCG an offline vCPU of -cpu max spins on the host.")
TCG_S390X_PLUG = Code("tcg-s390x-plug", "QEMU 11 under TCG can hang when the guest starts a new CPU.")
LOONGARCH_ACPI = Code("loongarch-acpi", "Before QEMU 11.1 a plugged CPU does not appear in a LoongArch guest.")

# What the autoscaler decides, and what it holds for.
LOAD_NEEDS_MORE = Code("load-needs-more", "The guest's CPUs are busy and tasks wait for them: the VM is to grow.")
LOAD_NEEDS_LESS = Code("load-needs-less", "Fewer vCPUs would have done for a whole window: the VM is to shrink.")
LOAD_FITS = Code("load-fits", "The VM has the vCPUs that its load needs, or near enough.")
BELOW_MINIMUM = Code("below-minimum", "The VM has fewer vCPUs than its minimum.")
ABOVE_MAXIMUM = Code("above-maximum", "The VM has more vCPUs than its maximum.")
AT_MINIMUM = Code("at-minimum", "The VM has its minimum of vCPUs, and its load would do with fewer.")
AT_MAXIMUM = Code("at-maximum", "The VM has its maximum of vCPUs, or all that it can have, and its load needs more.")
NOBODY_WAITS = Code("nobody-waits", "The guest's CPUs are busy, and no task waits for one: more would be of no use.")
WAITS_NOT_BUSY = Code("waits-not-busy", "Tasks wait while CPUs are idle: a quota or an affinity holds them back.")
QUEUE_DRAINS = Code("queue-drains", "The queue of waiting tasks gets shorter: the vCPUs that there are work it off.")
AUTOSCALE_OFF = Code("autoscale-off", "Somebody has switched the VM's autoscaling off while the service runs.")
NO_AUTOSCALE = Code("no-autoscale", "The VM has no [autoscale] in vms.d, or no vcpuctl serve keeps it.")
UNDER_WAY = Code("under-way", "An operation of the autoscaler's own is under way.")
OUTCOME_UNKNOWN = Code("outcome-unknown", "How the autoscaler's last operation ended is not known yet.")
OPERATOR_HOLDS = Code("operator-holds", "Somebody else has changed the VM, and their word counts for some time.")
NO_LOAD = Code("no-load", "Nothing was heard of the guest's load yet.")
LOAD_STALE = Code("load-stale", "Nothing new was heard of the guest's load for too long.")
LOAD_UNSUPPORTED = Code("load-unsupported", "The agent is of a version that does not tell the guest's load.")
LOAD_FORBIDDEN = Code("load-forbidden", "The guest's administrator does not let the agent tell the load.")
LOAD_PARTLY = Code("load-partly", "The guest's kernel does not tell all that bears on its load.")
JUST_BOOTED = Code("just-booted", "The guest has booted a moment ago, and is busy with that.")
WINDOW_FILLS = Code("window-fills", "The load was not seen for long enough to decide.")
IN_PAUSE = Code("in-pause", "The VM has changed a moment ago.")
BACKS_OFF = Code("backs-off", "The last attempt in this direction did not succeed, so the next one waits.")
HOST_SHORT = Code("host-short", "The host takes CPU time away from the guest (steal): more vCPUs would make it worse.")
HOST_PRESSED = Code("host-pressed", "The host's own tasks wait for its CPUs.")
OVER_BUDGET = Code("over-budget", "The host's budget of vCPUs is used up.")
REGRETTED = Code(
    "regretted", "The VM had to grow again right after it shrank, so it does not shrink that far for a while."
)
OSCILLATES = Code("oscillates", "The VM changed its direction too often within an hour, so it does not shrink.")

# Differences that migrate check finds between source and destination.
ARCH = Code("arch", "The targets differ.")
MACHINE_TYPE = Code("machine-type", "The machine types differ.")
TOPOLOGY = Code("topology", "The -smp topologies differ, or one of them is not known.")
NOT_INCOMING = Code("not-incoming", "The destination does not wait for a VM.")
CPU_TYPE = Code("cpu-type", "A slot takes different CPU types.")
SLOT_PROPS = Code("slot-props", "A slot has different properties.")
CPU_MISSING = Code("cpu-missing", "The destination lacks a CPU that the source has.")
CPU_TOO_MANY = Code("cpu-too-many", "The destination has a CPU that the source lacks.")
CPU_ORDER = Code("cpu-order", "The CPUs came in different orders, and QEMU goes by the order.")
DEVICE_ID = Code("device-id", "A CPU has different ids.")
QUEUES = Code("queues", "Devices have different numbers of queues.")
VM_NAME = Code("vm-name", "The VMs have different names.")
ACCELERATOR = Code("accelerator", "The accelerators differ.")
OLDER_QEMU = Code("older-qemu", "The destination's QEMU is the older one.")
STALE_RECORD = Code("stale-record", "The destination's record has entries that the source has no more.")
NO_TOPOLOGY = Code("no-topology", "QEMU does not show its -smp, which an export needs.")
