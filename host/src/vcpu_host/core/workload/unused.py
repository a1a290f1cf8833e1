# SPDX-License-Identifier: Apache-2.0
"""What keeps CPUs that came from being used, what became of threads, and what waits for CPUs that are away."""

from __future__ import annotations

from collections.abc import Iterator

from .. import codes
from ..finding import Finding, Level
from . import cpus
from .hurt import MOST, NAMES
from .model import Cpuset, Fate, Note, Who, Workload

_QUEUES_FIX = "ethtool -L {name} combined {count} in the guest; the hook raise-net-queues does it at every plug"
_OVERLAP_FIX = "make the partition anew: write member, then {kind} into its cpuset.cpus.partition"
_ISOLATED_FIX = "pin the programs that are to use them, or take the CPUs out of isolcpus=, nohz_full= or the partition"


#: States that stand until somebody mends them, whatever comes and goes.
_STANDING = (codes.PARTITION_OVERLAP, codes.PARTITION_INVALID)


def unused(workload: Workload, online: int, came: int, before: Workload | None = None) -> Iterator[Note]:
    """Yield what keeps the guest from using all of its CPUs.

    ``online`` is how many CPUs it has, or will have. ``came`` are the numbers of those that came, 0 if they are not
    known yet: the guest's kernel gives them, and which slot gets which differs between kernels. ``before`` is the look
    before an operation: only a state that it did not have hurts anybody.
    """
    yield from _isolated(workload, came)
    yield from _partitions(workload, came, before)
    for device in workload.network[:MOST]:
        count = min(device.most_queue_pairs, online)
        if device.queue_pairs < count:
            text = (
                f"{device.name} uses {device.queue_pairs} of {device.most_queue_pairs} queue pairs, with {online} CPUs"
            )
            yield Note(Level.NOTE, codes.NET_QUEUES, text, _QUEUES_FIX.format(name=device.name, count=count), count=1)
    limited = [each for each in workload.quotas if 1 <= each.cpus < online]
    if limited:
        first = min(limited, key=lambda each: each.cpus)
        name = first.unit or first.cgroup
        others = f", and {len(limited) - 1} more are limited" if len(limited) > 1 else ""
        text = f"{name} may use {first.cpus:g} CPUs of {online} (CPUQuota={first.cpus * 100:g}%){others}"
        who = tuple(Who(unit=each.unit, cgroup=each.cgroup) for each in limited[:NAMES])
        fix = "raise it where the program is to use the new CPUs: systemctl set-property UNIT CPUQuota=N%"
        yield Note(Level.NOTE, codes.CPU_QUOTA, text, fix, count=len(limited), who=who)


def _isolated(workload: Workload, came: int) -> Iterator[Note]:
    kinds = (
        ("isolcpus", workload.isolated),
        ("nohz_full", workload.nohz_full),
        ("isolated partitions", workload.partition_isolated),
    )
    isolated = workload.isolated | workload.nohz_full | workload.partition_isolated
    named = ", ".join(f"{name}: {cpus.text(mask)}" for name, mask in kinds if mask)
    if came & isolated:
        text = (
            f"{(came & isolated).bit_count()} of the {came.bit_count()} new CPUs are isolated ({named}): "
            "ordinary work does not use them"
        )
        yield Note(Level.NOTE, codes.ISOLATED_CPUS, text, _ISOLATED_FIX, count=(came & isolated).bit_count())
    elif not came and isolated & ~workload.online:
        text = f"the guest isolates CPUs that it does not have yet ({named}): new ones that get these numbers idle"
        yield Note(Level.NOTE, codes.ISOLATED_CPUS, text, _ISOLATED_FIX)


def _partitions(workload: Workload, came: int, before: Workload | None) -> Iterator[Note]:
    earlier = {each.cgroup: each for each in before.cpusets} if before is not None else {}
    for each in workload.cpusets[:MOST]:
        was = earlier.get(each.cgroup)
        shared = _shared(each, workload)
        if shared:
            fresh = shared & came
            # Only a look for what is not used has read the root's CPUs.
            if was is not None and before is not None and before.root_effective:
                fresh |= shared & ~_shared(was, before)
            text = f"the {each.partition} partition {each.cgroup} shares {cpus.named(shared)} with all other tasks"
            yield _of_cgroup(codes.PARTITION_OVERLAP, text, _OVERLAP_FIX.format(kind=each.partition), each, fresh)
        elif each.is_invalid:
            text = f"the partition {each.cgroup} is none now: {each.partition}"
            fix = "bring one of its CPUs back, or write member into its cpuset.cpus.partition"
            yield _of_cgroup(codes.PARTITION_INVALID, text, fix, each, was is not None and not was.is_invalid)


def _shared(group: Cpuset, workload: Workload) -> int:
    """Return the CPUs that a valid partition shares with the root."""
    return group.effective & workload.root_effective if group.is_partition else 0


def _of_cgroup(code: str, text: str, fix: str, group: Cpuset, fresh: object) -> Note:
    level = Level.WARNING if fresh else Level.NOTE
    return Note(level, code, text, fix, count=1, who=(Who(cgroup=group.cgroup),))


_FATES = {
    Fate.WIDENED: (
        Level.WARNING,
        codes.AFFINITY_BROKEN,
        "the kernel has given {count} all CPUs, pinned to {cpus} before: {names}",
        "pin them again (taskset -p), or restart them, when the CPUs are back",
    ),
    Fate.ASLEEP: (
        Level.NOTE,
        codes.AFFINITY_ASLEEP,
        "{count} asleep, pinned to {cpus}, which are away: {names}",
        "they keep the mask if the CPUs are back before they wake up, and lose it otherwise",
    ),
    Fate.PUT_BACK: (
        Level.NOTE,
        codes.AFFINITY_PUT_BACK,
        "vcpud has pinned {count} to {cpus} again: {names}",
        "",
    ),
}


def broken(workload: Workload) -> Iterator[Note]:
    """Yield what has become of threads whose last CPU went."""
    for each in workload.broken[:MOST]:
        level, code, text, fix = _FATES[each.fate]
        count = f"{each.threads.count} thread{'s' * (each.threads.count != 1)}"
        more = ", ..." if each.threads.count > len(each.threads.some) else ""
        names = ", ".join(map(str, each.threads.some)) + more
        words = text.format(count=count, cpus=cpus.named(each.cpus), names=names)
        yield Note(level, code, words, fix, count=each.threads.count, who=each.threads.some[:NAMES])
    if len(workload.broken) > MOST:
        rest = workload.broken[MOST:]
        text = f"threads of {len(rest)} more sets of CPUs had the same"
        level = Level.WARNING if any(each.fate is Fate.WIDENED for each in rest) else Level.NOTE
        yield Note(level, codes.AFFINITY_BROKEN, text, count=sum(each.threads.count for each in rest))


def findings(workload: Workload) -> Iterator[Finding]:
    """Yield what ``doctor`` says of the guest's programs."""
    online = workload.online.bit_count()
    for note in (*unused(workload, online, 0), *broken(workload)):
        yield Finding(Level.WARNING if note.code in _STANDING else note.level, note.code, note.text, note.hint)
    for unit in [each for each in workload.units if not each.cpus & workload.online][:MOST]:
        verb = "restarted" if unit.active else "started"
        yield Finding(
            Level.WARNING,
            codes.UNIT_AFFINITY,
            f"{unit.name} cannot be {verb}: CPUAffinity={cpus.text(unit.cpus)}, and none of these CPUs is online",
            "bring one of them online, or change CPUAffinity=; it fails with status 215/CPUAFFINITY until then",
        )
    for group in [each for each in workload.cpusets if _fallen_back(each, workload.online)][:MOST]:
        away = "online" if not group.cpus & workload.online else "its parent's"
        text = f"the cpuset {group.cgroup} has its parent's CPUs: none of its own is {away} ({cpus.text(group.cpus)})"
        fix = f"it gets them by itself when they are {away}"
        yield Finding(Level.NOTE, codes.CPUSET_FALLS_BACK, text, fix)
    if workload.kdump_reloads:
        yield Finding(
            Level.NOTE,
            codes.KDUMP_RELOADS,
            "kdump loads the crash kernel anew twice for each CPU that comes, once for each that goes",
            "expect that a crash meanwhile leaves no dump; 50-kdump-tools.rules does it",
        )


def _fallen_back(group: Cpuset, online: int) -> bool:
    ordinary = group.populated and not group.is_invalid and not group.is_partition
    return ordinary and bool(group.cpus) and not group.own(online)
