# SPDX-License-Identifier: Apache-2.0
"""The judge: what the product said, held against what was seen. Pure; each function gives the violations in words."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kit.e2e.platforms import SlotOf
from kit.ended import Ended
from kit.lab import GuestCpu

#: The exit status of each outcome.
_STATUS = {"done": 0, "failed": 1, "refused": 3, "unknown": 4, "partial": 6}
#: Statuses that an error may end with which left no outcome: failed, usage, refused, not reached.
_ERROR_STATUS = (1, 2, 3, 5)
#: Reasons with which an outcome that is unknown ends as "not reached": nobody is left to ask.
_GONE = ("qemu-gone", "qemu-silent")
#: What may lie in the runtime directory: a lock of a monitor or of a domain, a lock and a record of a QEMU process.
_KEPT = re.compile(r"[0-9a-f]{32}\.lock|d[0-9a-f]{24}\.lock|\d+-\d+-\d+\.(lock|pending)")
_SWEPT = re.compile(r"link-[0-9a-f]{16}\.sock")
#: The number at the end of a device's id.
_NUMBER = re.compile(r"\d+$")
#: Growth of the agent that is no leak: a share, and kB on top of it; descriptors.
_SHARE, _SLACK_KB, _SLACK_FDS = 1.2, 4000, 3
#: Samples below which a first and a last quarter say nothing.
_ENOUGH = 4


@dataclass(frozen=True)
class Seen:
    """A VM as the lab sees it: by slot, the QOM path of its CPU, and the guest's CPUs by number (online or not)."""

    filled: Mapping[int, str]
    cpus: Mapping[int, Mapping[int, bool]]
    slots: int
    threads: int

    @property
    def online(self) -> int:
        """How many vCPUs the guest has online."""
        return sum(sum(cpus.values()) for cpus in self.cpus.values())

    def whole(self, slot: int) -> bool:
        """The slot is filled and all of its threads are online."""
        cpus = self.cpus.get(slot, {})
        return slot in self.filled and len(cpus) == self.threads and all(cpus.values())

    def state(self, slot: int) -> str:
        """Return the state that ``list`` has to show for the slot (ARCHITECTURE.md, "Words")."""
        if slot not in self.filled:
            return "empty"
        cpus = self.cpus.get(slot, {})
        if not cpus:
            return "plugged"
        return "online" if self.whole(slot) else "partial" if any(cpus.values()) else "offline"


def see(reply: Sequence[Mapping[str, Any]], guest: Mapping[str, GuestCpu], slot_of: SlotOf, threads: int) -> Seen:
    """From query-hotpluggable-cpus, which gives the highest slot first, and from the guest's sysfs."""
    filled = {len(reply) - 1 - place: str(slot["qom-path"]) for place, slot in enumerate(reply) if "qom-path" in slot}
    cpus: dict[int, dict[int, bool]] = {}
    for name, cpu in guest.items():
        cpus.setdefault(slot_of(name, cpu), {})[int(name.removeprefix("cpu"))] = cpu["online"]
    return Seen(filled, cpus, len(reply), threads)


def ending(words: Sequence[str], ended: Ended, *, killed: bool = False) -> list[str]:
    """Exit status and document belong together, and whatever is not done has its reason."""
    if "Traceback (most recent call last)" in ended.stderr:
        return [f"{said(words)}: a traceback: {ended.stderr.strip().splitlines()[-1]}"]
    if killed and ended.status == -9:
        return []
    document = document_of(ended)
    if document is None:
        return [f"{said(words)}: status {ended.status}, and no JSON document on stdout: {ended.stdout[:200]!r}"]
    if "error" in document:
        found = _reason(document["error"])
        if ended.status not in _ERROR_STATUS or document.get("exit_status") != ended.status:
            found.append(f"error {document['error'].get('code')} with status {ended.status}")
    elif "outcome" in document:
        found = _outcome(document, ended.status)
    elif words[0] == "plan":
        found = _plan(document, ended.status)
    else:
        found = [f"status {ended.status} with a document"] if ended.status != 0 else []
    return [f"{said(words)}: {problem}" for problem in found]


def document_of(ended: Ended) -> dict[str, Any] | None:
    """What it said on stdout, if that is one JSON document."""
    try:
        return ended.json
    except ValueError:
        return None


def _outcome(document: Mapping[str, Any], status: int) -> list[str]:
    outcome, whole = document["outcome"], document.get("reason")
    gone = outcome == "unknown" and whole is not None and whole["code"] in _GONE
    found = []
    if status != (5 if gone else _STATUS.get(outcome)):
        found.append(f"{outcome} with status {status}")
    parts = [(slot["slot"], slot["outcome"], slot["reason"]) for slot in document["slots"]]
    outcomes = {part for _, part, _ in parts}
    fits = {
        "done": outcomes <= {"done"},
        "failed": outcomes <= {"failed", "refused"},
        "refused": outcomes <= {"refused"},
        "unknown": gone or "unknown" in outcomes,
        "partial": "unknown" not in outcomes and outcomes != {"done"},
    }
    if not fits.get(outcome, False):
        found.append(f"{outcome} of slots that are {sorted(outcomes)}")
    for slot, part, reason in parts:
        if part != "done" and reason is None and whole is None:
            found.append(f"slot {slot} is {part} without a reason")
        elif reason is not None:
            found += _reason(reason)
    return found + (_reason(whole) if whole is not None else [])


def _plan(document: Mapping[str, Any], status: int) -> list[str]:
    refusals = document.get("refusals", [])
    right = 0 if not refusals else 5 if refusals[0].get("unreachable") else 3
    return [] if status == right else [f"status {status} with {len(refusals)} refusals"]


def _reason(reason: Mapping[str, Any]) -> list[str]:
    missing = [part for part in ("code", "who", "text") if not reason.get(part)]
    return [f"a reason without {', '.join(missing)}: {reason}"] if missing else []


def truth(words: Sequence[str], ended: Ended, seen: Seen) -> list[str]:
    """Every slot that was said to be done is so, right then; a goal that was said to be reached is."""
    document = document_of(ended)
    if document is None or ended.status != 0 or words[0] in ("list", "plan"):
        return []
    holds: Mapping[str, Callable[[int], bool]] = {
        "plug": seen.whole,
        "online": lambda slot: slot in seen.cpus and all(seen.cpus[slot].values()),
        "offline": lambda slot: slot in seen.filled and not any(seen.cpus.get(slot, {}).values()),
        "unplug": lambda slot: seen.state(slot) == "empty" and slot not in seen.cpus,
        "scale": lambda slot: seen.whole(slot) or (slot not in seen.filled and slot not in seen.cpus),
    }
    done = [part["slot"] for part in document["slots"] if part["outcome"] == "done"]
    found = [
        f"{said(words)}: done, but slot {slot} is {seen.state(slot)}, guest CPUs {dict(seen.cpus.get(slot, {}))}"
        for slot in done
        if not holds[words[0]](slot)
    ]
    if words[0] == "scale":
        found += settled(int(words[1]), seen)
    if words[0] in ("plug", "unplug"):
        wanted = _named(words)
        count = int(words[words.index("-n") + 1]) if "-n" in words else 0
        if not wanted <= set(done) or len(done) * seen.threads < count:
            found.append(f"{said(words)}: done, of slots {done} alone")
    return found


def settled(goal: int, seen: Seen) -> list[str]:
    """Exactly so many vCPUs are there and online, and no slot is left halfway."""
    halfway = {slot: seen.state(slot) for slot in seen.filled if not seen.whole(slot)}
    strangers = sorted(set(seen.cpus) - set(seen.filled))
    if seen.online == goal == len(seen.filled) * seen.threads and not halfway and not strangers:
        return []
    strange = f", guest CPUs of empty slots {strangers}" if strangers else ""
    return [
        f"scale {goal}: done, but {seen.online} online, slots {sorted(seen.filled)} filled, halfway {halfway}{strange}"
    ]


def listed(document: Mapping[str, Any], seen: Seen) -> list[str]:
    """``list -o json`` agrees with what is seen, slot by slot, and in its sums."""
    found = []
    if document["agent"] is None:
        found.append(f"list: no agent: {document.get('agent_trouble')}")
    slots = {slot["slot"]: slot for slot in document["slots"]}
    if list(slots) != list(range(seen.slots)):
        found.append(f"list: slots {list(slots)} of {seen.slots}")
    for index, slot in slots.items():
        path = seen.filled.get(index)
        name = path.rpartition("/")[2] if path and path.startswith("/machine/peripheral/") else None
        threads = {t["guest_cpu"]: t["online"] for t in slot["threads"] if t["guest_cpu"] is not None}
        said_so = (slot["state"], slot["id"], slot["qom_path"], threads)
        is_so = (seen.state(index), name, path, dict(seen.cpus.get(index, {})))
        if slot.get("pending") is not None:
            found.append(f"list: slot {index} is said to be pending: {slot['pending']}")
        if said_so != is_so:
            found.append(f"list: slot {index} is {is_so}, and said to be {said_so}")
    sums = document["vm"]
    said_sums = (sums["status"], sums["plugged_vcpus"], sums["online_vcpus"], sums["possible_vcpus"])
    are_sums = ("running", len(seen.filled) * seen.threads, seen.online, seen.slots * seen.threads)
    if said_sums != are_sums:
        found.append(f"list: the VM is {are_sums}, and said to be {said_sums}")
    if document.get("unexplained_guest_cpus"):
        found.append(f"list: unexplained guest CPUs {document['unexplained_guest_cpus']}")
    return found


def told(operations: Sequence[Sequence[str]], commands: Sequence[Mapping[str, Any]]) -> list[str]:
    """QEMU was told by others than the lab only what these operations, at work at the same time, are about.

    ``commands`` are those of that time. An id ends in its slot's number: vcpu-N is the product's, vcpuN libvirt's,
    chaos-N the lab's.
    """
    found, added = [], set[str]()
    for command in commands:
        name = command.get("execute")
        if name not in ("device_add", "device_del") or str(command.get("id")).startswith("lab-"):
            continue
        target = str(command.get("arguments", {}).get("id"))
        rollback = name == "device_del" and target in added
        if name == "device_add":
            added.add(target)
        if not rollback and not any(_may(words, name, target) for words in operations):
            found.append(f"{'; '.join(map(said, operations))}: sent {name} of {target}")
    return found


def _may(words: Sequence[str], command: str, target: str) -> bool:
    if (words[0], command) not in {
        ("plug", "device_add"),
        ("unplug", "device_del"),
        ("scale", "device_add"),
        ("scale", "device_del"),
    }:
        return False
    named = _named(words)
    number = _NUMBER.search(target)
    return not named or (number is not None and int(number[0]) in named)


def _named(words: Sequence[str]) -> set[int]:
    return {int(word) for word in words[words.index("--slot") + 1 :]} if "--slot" in words else set()


def level(samples: Sequence[tuple[int, int]]) -> list[str]:
    """The agent's memory (kB) and open descriptors, one pair a sample in order of time, do not grow."""
    if len(samples) < _ENOUGH:
        return []
    quarter = len(samples) // 4
    first, last = samples[:quarter], samples[-quarter:]
    found = []
    for what, place, share, slack in (("kB resident", 0, _SHARE, _SLACK_KB), ("descriptors", 1, 1.0, _SLACK_FDS)):
        before, after = (statistics.median(sample[place] for sample in part) for part in (first, last))
        if after > before * share + slack:
            found.append(f"vcpud grew from {before:.0f} to {after:.0f} {what}")
    return found


def leftovers(before: Collection[str], after: Collection[str], *, killed: bool = False) -> list[str]:
    """New names in the runtime directory, which is this run's alone, that are neither lock nor record.

    A vcpuctl that was ``killed`` may leave the socket of its session, which a later one sweeps.
    """
    fresh = [name for name in set(after) - set(before) if not _KEPT.fullmatch(name)]
    return sorted(name for name in fresh if not (killed and _SWEPT.fullmatch(name)))


def said(words: Sequence[str]) -> str:
    """A command as one would type it."""
    return f"vcpuctl {' '.join(words)}"
