# SPDX-License-Identifier: Apache-2.0
"""pc and q35: ACPI CPU hotplug."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .. import codes
from ..finding import Finding, Level
from ..guest import AgentInfo
from ..model import HostView, Slot
from ..reason import Origin, Reason
from .acpi import AcpiPlatform, ejected
from .base import Cause, limited_by_the_kernel, plug_budget

#: The APIC ids of a CPU without x2APIC end here (hw/intc/apic_common.c, apic_common_set_id).
_XAPIC_LAST = 254
#: What an APIC id is made of, from its lowest bits up: the prop, and how -smp calls their number (X86CPUTopoInfo).
_APIC_FIELDS = (("thread-id", "threads"), ("core-id", "cores"), ("module-id", "modules"), ("die-id", "dies"))


def apic_id(host: HostView, slot: Slot) -> int | None:
    """Return the slot's APIC id; None if its props do not tell.

    Each level but the outermost takes as many bits as its count needs, so the ids of a machine whose counts are no
    powers of two have gaps, and reach higher than its slots (include/hw/i386/topology.h, x86_apicid_from_topo_ids).
    """
    props = slot.props or _by_place(host, slot.index)
    number = shift = 0
    for prop, level in _APIC_FIELDS:
        value = props.get(prop, 0)
        # -smp is shown since 6.1; before that, slots are few.
        count = host.topology.get(level) or 1 + max((_whole(s.props.get(prop)) for s in host.slots), default=0)
        number |= _whole(value) << shift
        shift += (count - 1).bit_length()
    socket = props.get("socket-id")
    return None if not isinstance(socket, int) else number | socket << shift


def _by_place(host: HostView, index: int) -> dict[str, int]:
    """Return the props of a slot of which only its owner's record is seen.

    The threads of a core follow each other, and so on. (hw/i386/x86.c, x86_possible_cpu_arch_ids.)
    """
    props = {}
    for prop, level in _APIC_FIELDS:
        index, props[prop] = divmod(index, max(1, host.topology.get(level, 1)))
    return {**props, "socket-id": index}


#: The first version that was seen to plug after an unplug under TCG.
_REPLUGS = (10, 0, 0)
_REPLUG = "QEMU {version} under TCG dies on the first device_add after an unplug (7.2 did, 14 of 14)"

#: The first kernels of which branches count fewer CPUs.
_COUNTS_FEWER = (6, 6)
_KNOWN_UNDER_TCG = (
    "KVM; or an older guest kernel (Debian 12's 6.1 counts all); or let Linux know one, as VMware: -machine vmport=on, "
    "-cpu MODEL,-hypervisor and -smbios type=1,serial=VMware-1"
)


def _release(kernel: str) -> tuple[int, int]:
    """Return version and patch level of a kernel release such as "6.12.118+deb13-amd64"; zeros if it has none."""
    match = re.match(r"([0-9]{1,5})\.([0-9]{1,5})", kernel)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _has_unplugged(host: HostView) -> bool:
    """Return whether an empty slot had a CPU.

    That is one of -smp, which fills the first slots, or one that the guest has ejected.
    """
    started = host.topology.get("cpus", 0)
    for slot in host.slots:
        said = host.ost.get(slot.index)
        if not slot.filled and (slot.index < started or (said is not None and ejected(said))):
            return True
    return False


def _remaps(host: HostView) -> bool:
    """Return whether devices can interrupt CPUs with wide APIC ids."""
    wide = host.iommu.get("eim") == "on" or host.iommu.get("xtsup") is True
    kvm_does = host.accel == "kvm" and host.cpu_properties.get("kvm-msi-ext-dest-id") is True
    return kvm_does or (wide and host.iommu.get("intremap") == "on")


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


class X86(AcpiPlatform):
    """The platform of pc and q35 machines."""

    name = "ACPI (pc, q35)"
    lists_cpus_when_up = True

    def matches(self, host: HostView) -> bool:
        """Return whether it is an x86 machine that can plug CPUs."""
        return host.arch in ("x86_64", "i386") and host.no_hotplug is None

    def restricts(self, host: HostView) -> bool:
        """Return whether some APIC ids are wide.

        They ascend with the slots (hw/i386/x86.c, x86_possible_cpu_arch_ids).
        """
        if not host.slots or "x2apic" not in host.cpu_properties:
            return False
        highest = apic_id(host, host.slots[-1])
        return highest is not None and highest > _XAPIC_LAST

    def cannot_plug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return why QEMU is not asked for a CPU that its interrupt controller cannot address.

        QEMU up to 10.0 ends on it; 11.1 is left with half a CPU.
        """
        if host.cpu_properties.get("x2apic") is not False:
            return None
        number = apic_id(host, slot)
        if number is None or number <= _XAPIC_LAST:
            return None
        return Reason(
            codes.APIC_ID_TOO_LARGE,
            Origin.VCPUCTL,
            f"slot {slot.index} would have APIC id {number}, and the VM's CPU model has no x2APIC, without which "
            f"{_XAPIC_LAST} is the last: QEMU may end on such a plug",
            "start the VM with a CPU model that has x2APIC (-cpu MODEL,+x2apic); or with an -smp whose dies, modules, "
            "cores and threads are powers of two, which leaves no gaps between the ids",
        )

    def is_second_thread(self, slot: Slot) -> bool:
        """Return whether the slot's thread is not its core's first.

        Its thread-id is the lowest part of the APIC id (arch/x86/kernel/apic/apic.c, apic_id_is_primary_thread).
        """
        return _whole(slot.props.get("thread-id")) > 0

    def guest_cannot_use(self, host: HostView, slot: Slot) -> Reason | None:
        """Return why Linux takes no CPU with a wide APIC id without interrupt remapping.

        Devices could not interrupt it. See try_to_enable_x2apic (arch/x86/kernel/apic/apic.c): where it knows no
        hypervisor, it does without x2APIC altogether ("IRQ remapping doesn't support X2APIC mode"); under KVM it takes
        ids up to 255, and all where KVM says that it needs no remapping for them.
        """
        if host.cpu_properties.get("x2apic") is not True or host.accel not in ("kvm", "tcg") or _remaps(host):
            return None
        shows_kvm = host.accel == "kvm" and all(host.cpu_properties.get(n) is not False for n in ("hypervisor", "kvm"))
        number, last = apic_id(host, slot), _XAPIC_LAST + shows_kvm
        if number is None or number <= last:
            return None
        return Reason(
            codes.APIC_ID_NOT_REMAPPED,
            Origin.VCPUCTL,
            f"slot {slot.index} would have APIC id {number}, and the VM has no interrupt remapping, without which "
            f"Linux brings up no CPU whose id is above {last}",
            "start the VM with -device intel-iommu,intremap=on,eim=on (q35; under KVM with kernel-irqchip=split)",
        )

    def plug_limit(self, host: HostView) -> tuple[int, Reason] | None:
        """Return that none is survived before 10.0 after an unplug, under TCG.

        The guest's word or an empty slot tells of one.
        """
        if not self.dies_of_replug(host) or not _has_unplugged(host):
            return super().plug_limit(host)
        text = f"a CPU was unplugged from this VM, and {_REPLUG.format(version=host.version_text)}"
        return 0, Reason(codes.TCG_REPLUG, Origin.VCPUCTL, text, "QEMU 10.0 or newer, or KVM; or start the VM anew")

    def few_possible(self, host: HostView, agent: AgentInfo) -> Cause:
        """Return why newer kernels count only those CPUs that are there at boot.

        They do so unless they know the hypervisor under them. See acpi_is_processor_usable
        (arch/x86/kernel/acpi/boot.c; 6.12.77, 6.18.17, and other branches since 2026) and topo_register_apic
        (arch/x86/kernel/cpu/topology.c, 6.9): a guest without a known signature at CPUID 0x40000000 counts as bare
        metal (hypervisor_is_type, X86_HYPER_NATIVE).
        """
        cause = limited_by_the_kernel(agent)
        hidden = self._hidden(host, agent)
        if cause.why or hidden is None or _release(agent.kernel) < _COUNTS_FEWER:
            return cause
        why = (
            f"Linux {agent.kernel} counts a CPU that is not there at its boot only if it knows the hypervisor that it "
            f"runs on, and {hidden.why}"
        )
        return Cause(why, hidden.fix)

    @staticmethod
    def _hidden(host: HostView, agent: AgentInfo) -> Cause | None:
        """Return why a guest cannot know its hypervisor, or None."""
        if "nopv" in agent.environment.kernel_arguments:
            return Cause("nopv keeps it from looking for one", "remove nopv from the guest's kernel command line")
        if host.accel == "tcg":
            return Cause("TCG is none that it knows", _KNOWN_UNDER_TCG)
        model = host.cpu_properties
        off = [f"{name}=off" for name in ("hypervisor", "kvm") if model.get(name) is False]
        if host.accel != "kvm" or not (off or agent.environment.hypervisor_flag is False):
            return None
        words = f" ({', '.join(off)})" if off else ""
        return Cause(f"KVM is hidden from it{words}", "-cpu without kvm=off, hypervisor=off and -hypervisor")

    def one_at_a_time(self, host: HostView) -> bool:
        """Return whether firmware may handle the plug in SMM, which loses plugs that overtake each other.

        That is tianocore BZ 2929. Only UEFI does, and where it has SMM it lies in flash (hw/i386/pc_sysfw.c). Else the
        guest's ACPI finds all CPUs that are there in one scan (hw/acpi/cpu.c, the CSCN method), which is the quickest
        way.
        """
        return bool(host.properties.get("pflash0"))

    def dies_of_replug(self, host: HostView) -> bool:
        """Return whether it is QEMU before 10.0 under TCG: its heap is corrupt after an unplug (7.2: 14 of 14)."""
        return host.accel == "tcg" and host.qemu_version < _REPLUGS

    def known_bugs(self, host: HostView) -> Iterator[Finding]:
        """Yield the bugs of the emulated APIC, and of unplugging under TCG before 10.0.

        See hw/intc/apic.c, apic_get_delivery_bitmask.
        """
        if host.accel != "tcg":
            return
        possible = sum(slot.vcpus for slot in host.slots)
        if host.qemu_version < (9, 0, 0) and possible <= 8:
            yield Finding(
                Level.PROBLEM,
                codes.TCG_FLAT_APIC,
                "QEMU before 9.0 under TCG loses IPIs when at most 8 CPUs are possible and slots are filled with "
                "holes: the guest hangs",
                "maxcpus=9 or more, or QEMU 9.0 or newer, or KVM",
            )
        if self.dies_of_replug(host):
            yield Finding(
                Level.PROBLEM if _has_unplugged(host) else Level.WARNING,
                codes.TCG_REPLUG,
                f"{_REPLUG.format(version=host.version_text)}, and on a migration (7.2 died of one, and hung in "
                "another)",
                "QEMU 10.0 or newer, or KVM; or never plug or migrate after an unplug",
            )
        else:
            yield plug_budget(host)
        if any(slot.type.startswith("max-") for slot in host.slots):
            yield Finding(
                Level.WARNING,
                codes.TCG_MWAIT,
                "-cpu max under TCG: an offline vCPU spins in MONITOR/MWAIT on the host",
                "-cpu max,-monitor",
            )


PLATFORM = X86()
