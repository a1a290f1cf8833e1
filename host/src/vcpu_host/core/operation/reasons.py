# SPDX-License-Identifier: Apache-2.0
"""The reasons that the state machine gives, in words: who, what, and what to do."""

from __future__ import annotations

from .. import codes
from ..guest import CpuResult
from ..model import HostView
from ..owner import record_behind
from ..reason import Origin, Reason
from ..run_states import RUN_STATES, not_running, run_state
from ..view import SlotView, in_guest, removal_stuck
from .slot_job import Goal, Job


def already(view: SlotView) -> Reason:
    """Return the reason that there is nothing to do for this slot."""
    return Reason(codes.ALREADY, Origin.VCPUCTL, f"slot {view.index} is {in_guest(view.state)} already")


def parked(job: Job, remedy: str) -> Reason | None:
    """Return which threads the guest's SMT mode keeps offline, without which a slot counts as online; None if none."""
    idle = [thread for thread in job.threads if thread.parked]
    if not idle:
        return None
    names = ", ".join(thread.firmware_id if thread.number is None else f"cpu{thread.number}" for thread in idle)
    return Reason(
        codes.SMT_OFF,
        Origin.GUEST,
        f"{names} {'stays' if len(idle) == 1 else 'stay'} offline: so the guest's SMT mode wants it",
        remedy,
    )


def not_verified(*, filled: bool, by_firmware: bool) -> Reason:
    """Return what a success without an agent leaves open (promise 2).

    That is by the slot as QEMU has it, and by whether firmware has spoken.
    """
    if not filled:
        text = "the slot is empty; whether the guest had taken the CPU offline before was not checked (--without-agent)"
    elif by_firmware:
        text = (
            "QEMU has the CPU and the guest's firmware has seen it; whether it is online in the guest was not checked "
            "(--without-agent)"
        )
    else:
        text = "QEMU has the CPU; whether the guest has seen it was not checked (--without-agent)"
    return Reason(codes.NOT_VERIFIED, Origin.VCPUCTL, text, "look in the guest")


def interrupted() -> Reason:
    """Return the reason that the user stopped waiting."""
    return Reason(codes.INTERRUPTED, Origin.VCPUCTL, "stopped waiting on request", "vcpuctl list shows where it stands")


def shut_down() -> Reason:
    """Return the reason that the guest powered off."""
    return Reason(codes.VM_SHUTDOWN, Origin.GUEST, "the guest shut down in the middle of the operation")


def guest_restarted() -> Reason:
    """Return the reason of a reset in the middle."""
    return Reason(codes.GUEST_RESTARTED, Origin.GUEST, "the guest restarted in the middle of the operation")


def unplug_refused() -> Reason:
    """Return the reason of a DEVICE_UNPLUG_GUEST_ERROR."""
    return Reason(
        codes.GUEST_KEPT_IT,
        Origin.GUEST,
        "the guest could not release the CPU (DEVICE_UNPLUG_GUEST_ERROR)",
        "look at the guest's kernel log",
    )


def taken_away(job: Job) -> Reason:
    """Return the reason of somebody else's device_del, or that the guest ejected it."""
    return Reason(
        codes.TAKEN_AWAY,
        Origin.QEMU,
        f"slot {job.slot} was emptied while it was being brought up, not by this operation",
        "find out who else changes this VM's CPUs",
    )


def guest_ignored(job: Job) -> Reason:
    """Return the reason that the firmware's acknowledgement came, and the CPU did not."""
    return Reason(
        codes.GUEST_IGNORED,
        Origin.GUEST,
        f"the guest's firmware acknowledged slot {job.slot}, but its kernel shows no such CPU",
        "look at the guest's kernel log",
    )


def guest_unaware(job: Job) -> Reason:
    """Return the reason that the guest, asked for its list, does not show a CPU (promise 3).

    QEMU has had the CPU since before.
    """
    return Reason(
        codes.GUEST_UNAWARE,
        Origin.GUEST,
        f"QEMU has a CPU in slot {job.slot} that the guest does not know: it was told of it before its present state "
        "(before a snapshot was loaded, for example), and it is not told again",
        f"vcpuctl unplug --slot {job.slot}, and plug it again; scale does both",
    )


def not_plugged_anew(job: Job, why: Reason) -> Reason:
    """Return the reason that it was to be taken out and plugged again, and cannot be."""
    text = f"{guest_unaware(job).text}; and it cannot be unplugged in order to be plugged again: {why.text}"
    return Reason(codes.GUEST_UNAWARE, why.who, text, why.hint, why.errno)


def left_empty(job: Job, why: Reason | None) -> Reason | None:
    """Return why the slot, which had a CPU, has none now.

    If it was taken out to be plugged again, ``why`` is what kept it out.
    """
    if why is None or not job.replugged or why.code == codes.TAKEN_AWAY:
        return why
    text = (
        f"the guest did not know the CPU of slot {job.slot}, so it was taken out in order to be plugged again, and "
        f"could not be plugged: {why.text}"
    )
    hint = f"vcpuctl plug --slot {job.slot} tries again, when that is mended"
    return Reason(codes.REPLUG_FAILED, why.who, text, f"{why.hint}; {hint}" if why.hint else hint, why.errno)


def came_back(job: Job) -> Reason:
    """Return the reason that something in the guest undoes what the agent does."""
    numbers = ", ".join(f"cpu{thread.number}" for thread in job.threads if thread.number is not None)
    return Reason(
        codes.COMES_BACK_ONLINE,
        Origin.GUEST,
        f"something in the guest brings {numbers or f'the CPU of slot {job.slot}'} online again, "
        f"{job.removal.relapses} times by now",
        "find what does so (a cron job, a udev rule, a CPU manager) and stop it; vcpud's journal has the times",
    )


def slipped(job: Job) -> Reason | None:
    """Return what came about although the guest had let go, and was seen to.

    The CPU was online when it was ejected.
    """
    if not job.removal.slipped:
        return None
    return Reason(
        codes.EJECTED_ONLINE,
        Origin.GUEST,
        f"something in the guest brought the CPU of slot {job.slot} online again when device_del was under way; the "
        "guest's kernel took it offline by itself",
        came_back(job).hint,
    )


def gap(job: Job) -> Reason | None:
    """Return what is to be said of a CPU that is gone, or None."""
    return slipped(job) or (record_behind(job.slot) if job.removal.unrecorded else None)


def inconsistent(result: CpuResult) -> Reason:
    """Return the reason that the agent's answer contradicts what it says it observed."""
    return Reason(
        codes.AGENT_INCONSISTENT,
        Origin.AGENT,
        f"the agent answered {result.status} for {result.firmware_id}, but what it observed says otherwise",
        "update vcpud in the guest",
    )


def atomic() -> Reason:
    """Return the reason that it was taken back because others failed."""
    return Reason(codes.ATOMIC, Origin.VCPUCTL, "taken back, since not every slot could be done (--atomic)")


def not_taken_back(job: Job, why: Reason) -> Reason:
    """Return the reason that the way back failed too: both reasons matter."""
    first = job.reason.text if job.reason else "it failed"
    where = "could not be unplugged again" if job.goal is Goal.GONE else "could not be brought back online"
    return Reason(why.code, why.who, f"{first}; then it {where}: {why.text}", why.hint, why.errno)


def not_begun(job: Job, why: Reason) -> Reason:
    """Return the reason that the operation ended before anything was begun for the slot that may still take effect."""
    if job.passing is not None:
        first = job.passing
        return Reason(
            first.code, first.who, f"{first.text}; it was to be tried again, but {why.text}", why.hint, first.errno
        )
    return Reason(codes.NOT_BEGUN, why.who, f"{why.text}; nothing was changed for this slot", why.hint)


def stopped() -> Reason:
    """Return the reason that the VM's CPUs stand still: QEMU has said so, and no look has shown yet why."""
    return Reason(codes.VM_NOT_RUNNING, Origin.VCPUCTL, "the VM has stopped", "vcpuctl doctor says why")


def standing_still(host: HostView) -> Reason | None:
    """Return why the VM's CPUs stand still, in the words with which a plan refuses; None if they run."""
    if host.running:
        return None
    why = not_running(host)
    return why._replace(code=codes.VM_PAUSED) if run_state(host) is RUN_STATES["paused"] else why


def timed_out(job: Job, trouble: Reason | None, standstill: Reason | None) -> Reason:
    """Return the reason that time ran out: what was awaited, and from whom."""
    hint = "it may still happen: vcpuctl list shows where it stands; running the same command again continues"
    if not job.begun:
        hint = "run the same command again, with more time (--timeout)"
    if standstill is not None:
        return standstill._replace(text=f"time ran out: {standstill.text}", hint=f"{standstill.hint}; {hint}")
    if trouble is not None:
        return Reason(codes.AGENT_LOST, Origin.AGENT, f"time ran out without the agent: {trouble.text}", hint)
    if not job.begun:
        return Reason(codes.NOT_BEGUN, Origin.VCPUCTL, "time ran out before its turn", hint)
    if job.removal.ending is not None:
        return removal_stuck(job.removal.ending) if job.removal.ending.leaving else record_behind(job.slot)
    if job.goal is Goal.GONE and job.removal.sent:
        return Reason(codes.REMOVAL_PENDING, Origin.GUEST, "the guest has not ejected the CPU yet", hint)
    if job.goal is not Goal.UP:
        return Reason(codes.OFFLINE_PENDING, Origin.GUEST, "the guest has not taken the CPU offline yet", hint)
    if job.plug.unanswered:
        return Reason(codes.ADD_PENDING, Origin.QEMU, "QEMU has not answered device_add yet", hint)
    if not job.filled:
        text = "the CPU was taken out in order to be plugged again, and that had not been done when time ran out"
        return Reason(
            codes.REPLUG_PENDING, Origin.VCPUCTL, text, "run the same command again, with more time (--timeout)"
        )
    if not job.seen:
        return Reason(codes.ARRIVAL_PENDING, Origin.GUEST, "the guest has not taken notice of the CPU yet", hint)
    return Reason(codes.ONLINE_PENDING, Origin.GUEST, "the guest has not brought the CPU online yet", hint)
