# SPDX-License-Identifier: Apache-2.0
"""What the host has to know of a platform; each module overrides where its machines differ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .. import codes
from ..finding import Finding, Level
from ..guest import AgentInfo
from ..model import HostView, Ost, Slot
from ..reason import Origin, Reason
from ..text import cpu_count


@dataclass(frozen=True)
class Platform(ABC):
    """A platform whose slots can all be plugged and unplugged, and that leaves no evidence beside the agent's.

    Those below it have no fields and are no dataclasses of their own: making nine took 3 % of a list.
    """

    #: For people: "ACPI (pc, q35)".
    name: ClassVar[str]
    #: The agent's word for such a machine (Hello): one that calls it otherwise cannot tell its CPUs' identities.
    agent_platform: ClassVar[str] = ""
    #: Whether the guest's firmware tells QEMU when it has processed a plug, so that the agent need not.
    acknowledges: ClassVar[bool] = False
    #: Whether QEMU's list of what the guest said of its CPUs is empty until the guest's ACPI is up, and not for good.
    lists_cpus_when_up: ClassVar[bool] = False
    #: Whether a slot is a core, which may have several threads.
    whole_cores: ClassVar[bool] = False
    #: The device that a virtio-serial port is attached to.
    serial_device: ClassVar[str] = "virtio-serial-pci"

    @abstractmethod
    def matches(self, host: HostView) -> bool:
        """Return whether this module speaks for the machine."""

    @abstractmethod
    def firmware_ids(self, host: HostView, slot: Slot) -> tuple[str, ...]:
        """Return the identities of the slot's threads in the guest, in thread order; empty if the platform has none."""

    def numbers_plugs(self, host: HostView) -> bool:
        """Return whether a thread's identity follows from the order of plugging, so that an empty slot has none yet."""
        del host
        return False

    def arriving(self, host: HostView, slots: Sequence[Slot]) -> tuple[tuple[str, ...], ...]:
        """Return the identities that the threads of these empty slots get if they are plugged in this order."""
        return tuple(self.firmware_ids(host, slot) for slot in slots)

    def unheld(self, host: HostView) -> frozenset[str]:
        """Return the identities that a guest may show for a moment although no slot has them, or not any more."""
        del host
        return frozenset()

    def understood_by(self, agent_platform: str) -> bool:
        """Return whether an agent that says so of its machine names the CPUs as this module does."""
        return agent_platform == self.agent_platform

    def misunderstanding(self, agent: AgentInfo) -> Reason:
        """Return why an agent that is not understood (above) cannot name the CPUs, and what to do."""
        return Reason(
            codes.AGENT_PLATFORM,
            Origin.AGENT,
            f"the agent takes its machine for {agent.platform!r}, and so cannot name the CPUs of {self.name}",
            "update vcpu-guest in the guest",
        )

    def guest_is_deaf(self, agent: AgentInfo) -> Reason | None:
        """Return why the guest hears of no CPU that comes or is to go, as its agent has seen; or None."""
        del agent
        return None

    def restricts(self, host: HostView) -> bool:
        """Return whether ``cannot_plug`` or ``guest_cannot_use`` may say anything of any slot.

        Else none is asked about.
        """
        del host
        return False

    def cannot_plug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return why this slot can never be plugged, or None."""
        del host, slot
        return None

    def is_second_thread(self, slot: Slot) -> bool:
        """Return whether all that the slot holds are threads of a core beside its first.

        Linux without SMT keeps them offline. Where a slot holds whole cores that is told by their threads.
        """
        del slot
        return False

    def guest_cannot_use(self, host: HostView, slot: Slot) -> Reason | None:
        """Return why Linux can never bring this slot's CPUs online on this machine, or None."""
        del host, slot
        return None

    def plug_limit(self, host: HostView) -> tuple[int, Reason] | None:
        """Return how many vCPUs at most QEMU survives to be plugged from now on, and why; None if nothing is known.

        It is an upper bound: what shows in a look is not all that was ever plugged.
        """
        left = tcg_budget_left(host)
        if left is None:
            return None
        return left, Reason(codes.TCG_PLUG_BUDGET, Origin.VCPUCTL, _budget_used(host, left), _BUDGET_FIX)

    def few_possible(self, host: HostView, agent: AgentInfo) -> Cause:
        """Return why the guest's kernel can have fewer CPUs than the VM, as far as that can be told."""
        del host
        return limited_by_the_kernel(agent)

    def cannot_unplug(self, host: HostView, slot: Slot) -> Reason | None:
        """Return why this slot can never be unplugged, or None."""
        del host, slot
        return None

    def dies_of_replug(self, host: HostView) -> bool:
        """Return whether this QEMU is known not to survive a plug after an unplug."""
        del host
        return False

    def one_at_a_time(self, host: HostView) -> bool:
        """Return whether a plug has to wait until the guest has taken notice of the one before it."""
        del host
        return False

    def numbers_arrivals(self, host: HostView) -> Finding | None:
        """Return what to say of a QEMU that migrates part of a CPU's state by the order in which CPUs came.

        Return None for any other QEMU.
        """
        del host
        return None

    def refusal(self, ost: Ost) -> Reason | None:
        """Return what an _OST of an eject request says: a refusal.

        Return None if it is none (success, in progress, other).
        """
        del ost
        return None

    def ejected(self, ost: Ost) -> bool:
        """Return whether this _OST says that the guest has let go of a CPU."""
        del ost
        return False

    def acknowledged(self, ost: Ost) -> bool:
        """Return whether this _OST says that the guest has processed the insertion of a CPU."""
        del ost
        return False

    def known_bugs(self, host: HostView) -> Iterator[Finding]:
        """Yield what this QEMU is known to do wrong on such a machine, for ``vcpuctl doctor``."""
        if host.accel == "tcg" and host.no_hotplug is None:
            yield plug_budget(host)


class Cause(NamedTuple):
    """Why something is so, empty if that is not known, and what to do."""

    why: str
    fix: str


#: What on its command line makes a kernel count fewer CPUs (Documentation/admin-guide/kernel-parameters.txt). With
#: another number maxcpus= only leaves CPUs offline at boot.
_LIMITING = ("nr_cpus=", "possible_cpus=", "disable_cpu_apicid=", "nosmp", "maxcpus=0", "nolapic")


def limited_by_the_kernel(agent: AgentInfo) -> Cause:
    """Return what the kernel says of itself: its command line, or how it was built."""
    arguments = agent.environment.kernel_arguments
    named = [a for a in arguments if a in _LIMITING or f"{a.partition('=')[0].replace('-', '_')}=" in _LIMITING]
    if named:
        words = " ".join(named)
        return Cause(f"its command line has {words}", f"remove {words} from the guest's kernel command line")
    highest = agent.environment.kernel_max  # 0 where the agent does not say
    if highest and cpu_count(agent.environment.possible) == highest + 1:
        return Cause("it was built for no more (CONFIG_NR_CPUS)", "a guest kernel with a larger CONFIG_NR_CPUS")
    return Cause("", "the guest's kernel log says how many CPUs it allows (dmesg | grep -i allowing)")


_BUDGET_FIX = "a larger maxcpus, or KVM; a restart or a restore gives a new budget"


def _possible(host: HostView) -> int:
    return sum(slot.vcpus for slot in host.slots)


def _budget_used(host: HostView, left: int) -> str:
    possible = _possible(host)
    return (
        f"under TCG this QEMU process can start {possible} vCPUs in its life, and has started {possible - left} or "
        "more: a plug beyond that ends it"
    )


def tcg_budget_left(host: HostView) -> int | None:
    """Return at most how many more vCPUs may start in this process; None if no such limit is known.

    Every vCPU thread claims a TCG context for good, and there are maxcpus of them (tcg/tcg.c, tcg_register_thread).
    Those of -smp have claimed theirs, whether they are still there or not, and so has each CPU that a device_add or a
    -device made. With one thread for all (thread=single) there is no such limit.
    """
    started = host.topology.get("cpus")
    if host.accel != "tcg" or started is None:
        return None
    threads = [thread for slot in host.slots for thread in (*slot.threads, *slot.leaving, *slot.phantoms)]
    if len({thread.thread_id for thread in threads}) < len(threads):
        return None
    came_later = sum(not thread.at_start for thread in threads)
    return max(0, _possible(host) - started - came_later)


def plug_budget(host: HostView) -> Finding:
    """Return the finding on ``tcg_budget_left``. That QEMU aborts was seen on 10.0 and 11.1."""
    if tcg_budget_left(host) == 0 and not all(slot.filled for slot in host.slots):
        return Finding(Level.PROBLEM, codes.TCG_PLUG_BUDGET, _budget_used(host, 0), _BUDGET_FIX)
    return Finding(
        Level.WARNING,
        codes.TCG_PLUG_BUDGET,
        "under TCG the start's vCPUs and all plugs ever made in this QEMU process must stay within maxcpus "
        f"({_possible(host)}): the plug beyond it aborts QEMU",
        _BUDGET_FIX,
    )


def boot_cpu(entity: str) -> Reason:
    """Return why slot 0 stays; ``entity`` is what a slot holds."""
    return Reason(
        codes.BOOT_CPU,
        Origin.VCPUCTL,
        f"slot 0 holds the boot {entity}, which QEMU does not unplug on this platform",
        "choose another slot",
    )
