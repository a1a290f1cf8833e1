# SPDX-License-Identifier: Apache-2.0
"""Turns the kernel's errno into a reason that says what stands in the way and what to do.

An errno alone is ambiguous: EBUSY has five causes when a CPU is to go offline. The guest's state after the refusal
(`Context`) decides between them; where it cannot, the text lists the remaining causes, the likeliest first. An errno of
write(2) comes from the kernel's CPU code, one of open(2) from the mount or a security module, and a reason says which.
What to do comes last, so lists within a text are kept short: the wire has room for 1024 bytes (`rpc.convert`).

Sources: kernel/cpu.c (_cpu_down, cpu_down_maps_locked, cpu_device_down), kernel/sched/core.c (dl_bw_check_overflow),
kernel/time/tick-sched.c (tick_nohz_cpu_down), arch/x86/kernel/irq.c (check_irq_vectors_for_cpu_disable).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass

from vcpu_guest.core import cmdline, cpulist
from vcpu_guest.core.model import Reason

#: So many arguments of the kernel's command line stand in a reason.
_ARGUMENTS = 3


@dataclass(frozen=True, slots=True)
class Context:
    """The guest's state after the kernel refused CPU `number`.

    `deadline_tasks` holds at most a few names with pids, `arguments` what of the kernel's command line bears on CPUs.
    `opened`: the CPU's file could be opened for writing, so the errno is that of the write. `root`: the agent is root.
    """

    number: int
    present: bool = True
    has_online: bool = True
    online: frozenset[int] = frozenset()
    isolated: frozenset[int] = frozenset()
    nohz_full: frozenset[int] = frozenset()
    smt_control: str = ""
    deadline_tasks: tuple[str, ...] = ()
    possible: frozenset[int] | None = None
    arguments: tuple[str, ...] = ()
    opened: bool = True
    root: bool = True


def name_of(number: int) -> str:
    """Return the errno's symbol, for example "EBUSY"; "" for 0."""
    if number == errno.EOPNOTSUPP:  # Python calls it ENOTSUP, the kernel never does
        return "EOPNOTSUPP"
    return errno.errorcode.get(number, f"E{number}") if number else ""


def denial(path: str, code: int) -> tuple[str, ...]:
    """Return the entry of Environment.unwritable for a file whose opening gave errno `code`; none for 0."""
    return (f"{path}: {name_of(code)}",) if code else ()


def no_control(number: int) -> Reason:
    """Return the reason for a CPU without an `online` file."""
    if number == 0:
        return Reason("cpu0", "the kernel does not let cpu0 be switched: it is the boot CPU, leave it online")
    return Reason("no-control", f"the kernel gives cpu{number} no online file: it cannot be switched")


def last_cpu(number: int) -> Reason:
    """Return the reason for the only online CPU."""
    return Reason("last-cpu", f"cpu{number} is the only one online: bring another one online first")


def smt_off(number: int, control: str, code: int = 0, arguments: Iterable[str] = ()) -> Reason:
    """Return the reason for a thread that the guest's SMT mode leaves idle.

    "forceoff" lasts until the next boot (Documentation/ABI/testing/sysfs-devices-system-cpu, smt/control).
    """
    why = _some(cmdline.against_smt(arguments))
    if control == "forceoff":
        remedy = f"it cannot be switched on while the guest runs: boot without {why or 'nosmt=force'}"
    else:
        remedy = f"write on to /sys/devices/system/cpu/smt/control, or boot without {why or 'nosmt'}"
    return Reason(
        "smt-off",
        f"cpu{number} is a sibling thread and simultaneous multithreading is {control or 'off'}: {remedy}",
        code,
    )


def no_rights(number: int, code: int, *, root: bool = True) -> Reason:
    """Return the reason for a file that the agent may not write: the kernel's CPU code was not asked."""
    what = f"vcpud may not write the file online of cpu{number} ({name_of(code)}), so the kernel was not asked: "
    if code == errno.EROFS:
        why = (
            "/sys is read-only where it runs, by a drop-in of vcpud.service that lacks "
            "ReadWritePaths=/sys/devices/system/cpu (systemctl cat vcpud), or in a container without a writable /sys"
        )
    elif not root:
        why = "it does not run as root: take User= out of the drop-ins of vcpud.service (systemctl cat vcpud)"
    else:
        why = (
            "a security module, a drop-in of vcpud.service (systemctl cat vcpud) or the container that it runs in "
            "denies it: the audit log has the denial (journalctl _TRANSPORT=audit, ausearch -m avc)"
        )
    return Reason("agent-no-rights", what + why, code)


def vanished(number: int, code: int = 0) -> Reason:
    """Return the reason for a CPU that was removed in the meantime."""
    return Reason("vanished", f"cpu{number} was removed while it was being switched: look again", code)


def contrary(number: int, *, online: bool) -> Reason:
    """Return the reason for a write that succeeded, although reading back shows the contrary."""
    goal, found = ("online", "offline") if online else ("offline", "online")
    return Reason(
        "reverted",
        f"the kernel took the request, but cpu{number} is {found} again: something else in the guest switches CPUs too "
        f"(a udev rule, a tuning daemon, an operator); stop it, then bring the CPU {goal} again",
    )


def explain(code: int, context: Context, *, online: bool) -> Reason:
    """Return the reason for errno `code`, which opening or writing `online` gave."""
    if not context.present:
        return vanished(context.number, code)
    if code in {errno.ENOENT, errno.EACCES} and not context.has_online:
        found = no_control(context.number)
        return Reason(found.code, found.text, code)
    # The kernel's CPU code never returns EROFS or EACCES.
    if code in {errno.EROFS, errno.EACCES} or (not context.opened and code == errno.EPERM):
        return no_rights(context.number, code, root=context.root)
    reason = _explain_online(code, context) if online else _explain_offline(code, context)
    return reason or _explain_other(code, context)


def _explain_online(code: int, context: Context) -> Reason | None:
    cpu = f"cpu{context.number}"
    # x86 boots a second thread once and takes it back, which is ECANCELED; from then on it returns EPERM (kernel/cpu.c,
    # cpu_bootable; seen alike on 6.1, 6.12 and 7.2). On POWER a callback of the platform undoes it: always ECANCELED.
    if code in {errno.EPERM, errno.ECANCELED} and _leaves_threads_idle(context.smt_control):
        return smt_off(context.number, context.smt_control, code, context.arguments)
    if code == errno.EPERM:
        return Reason(
            "online-forbidden",
            f"the kernel forbids bringing {cpu} online, and not for simultaneous multithreading, which is "
            f"{context.smt_control or 'not switchable here'}: its log (dmesg) or the audit log may say who",
            code,
        )
    if code == errno.EBUSY:
        return Reason("hotplug-disabled", _HOTPLUG_DISABLED, code)
    if code == errno.ENOMEM:
        return Reason("no-memory", f"the kernel has no memory for {cpu}: free some, or give the guest more", code)
    if code in {errno.EIO, errno.ETIMEDOUT, errno.ENODEV, errno.ENOSYS}:
        return Reason(
            "bring-up-failed",
            f"the kernel could not start {cpu}: its log (dmesg) says where; often the host gave it too little time, "
            "or a CPU model that differs from the first CPU's",
            code,
        )
    if code == errno.EINVAL and context.possible is not None and context.number not in context.possible:
        limits = _some(cmdline.limiting_possible(context.arguments))
        return Reason(
            "not-possible",
            f"the kernel does not count {cpu} among its possible CPUs ({cpulist.brief(context.possible)}): "
            + (f"boot without {limits}" if limits else "its log (dmesg) says at boot how many it allows, and why"),
            code,
        )
    return None


def _explain_offline(code: int, context: Context) -> Reason | None:
    if code == errno.EBUSY:
        return _explain_busy(context)
    if code == errno.EPERM:
        return Reason(
            "offline-forbidden", f"the kernel forbids taking cpu{context.number} offline: leave it online", code
        )
    if code == errno.EOPNOTSUPP:
        return Reason(
            "platform-forbids",
            "this platform cannot take CPUs offline (a confidential guest, or firmware that cannot stop a CPU): "
            "leave them online",
            code,
        )
    if code == errno.ENOSPC:
        return Reason(
            "irq-vectors",
            f"the remaining CPUs have no free interrupt vectors for those of cpu{context.number}: "
            "remove devices or their queues, or keep more CPUs online",
            code,
        )
    return None


def _explain_busy(context: Context) -> Reason:
    others = context.online - {context.number}
    if not others:
        found = last_cpu(context.number)
        return Reason(found.code, found.text, errno.EBUSY)
    if context.isolated and others <= context.isolated:
        return Reason(
            "last-housekeeping",
            f"cpu{context.number} is the last online CPU that is not isolated (isolated are "
            f"{cpulist.brief(context.isolated)}): bring another one online that is not, "
            "or boot without isolcpus= for one of them",
            errno.EBUSY,
        )
    causes: list[Reason] = []
    if context.deadline_tasks:
        causes.append(
            Reason(
                "deadline-bandwidth",
                "the remaining CPUs cannot carry the bandwidth reserved by SCHED_DEADLINE tasks "
                f"({', '.join(context.deadline_tasks)}): stop them, or give them less runtime (chrt --deadline)",
            )
        )
    if context.nohz_full and context.number not in context.nohz_full:
        causes.append(
            Reason(
                "nohz-timekeeper",
                f"cpu{context.number} keeps time for the nohz_full CPUs ({cpulist.brief(context.nohz_full)}): "
                "keep it online, or boot without nohz_full=",
            )
        )
    causes.append(Reason("hotplug-disabled", _HOTPLUG_DISABLED + _FORGOTTEN))
    text = causes[0].text
    if len(causes) > 1:
        text += "; if it is not that: " + "; or ".join(cause.text for cause in causes[1:])
    return Reason(causes[0].code, text, errno.EBUSY)


def _explain_other(code: int, context: Context) -> Reason:
    return Reason(
        "kernel-error",
        f"the kernel refused cpu{context.number} with {name_of(code)}: its log (dmesg) may say why",
        code,
    )


def _some(arguments: Iterable[str]) -> str:
    """Return the arguments of a command line for a sentence: all, or the first few and how many follow."""
    whole = list(dict.fromkeys(arguments))
    more = len(whole) - _ARGUMENTS
    return " ".join(whole) if more <= 0 else f"{' '.join(whole[:_ARGUMENTS])} and {more} more"


def _leaves_threads_idle(control: str) -> bool:
    """Say whether smt/control leaves threads idle: off, forceoff, or a number of threads a core."""
    return control in {"off", "forceoff"} or (control.isascii() and control.isdigit())


_HOTPLUG_DISABLED = (
    "the kernel has CPU hotplug disabled for the moment (suspend, kexec, a PCI or microcode update): try again shortly"
)
#: Seen with Linux 6.1, which miscounts reservations; only debugfs shows the count.
_FORGOTTEN = (
    ". If it stays so: the kernel may still count SCHED_DEADLINE bandwidth of tasks that have ended, which a restart "
    "of the guest clears"
)
