# SPDX-License-Identifier: Apache-2.0
"""What a QEMU under KVM holds after many plugs and unplugs: ``build/kvm.json`` and ``.md``, written by the run.

The lab's own monitor plugs and unplugs, so that what grows is QEMU's alone.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kit.e2e.machine import ROOT, Machine
from kit.lab import report

SCHEMA_VERSION = 1
#: After so many plugs and unplugs the process is looked at. What comes once per slot has come by the second look.
LOOKS = (0, 10, 50)
#: The slots that come and go in turn.
SLOTS = (1, 2, 3)
_PARTS = ROOT / "build" / "kvm"
#: Seconds for a step of the guest, on a busy machine.
_WITHIN = 120.0
#: A mapping of at least so many KiB is the guest's RAM.
_RAM_KIB = 256 << 10
#: Shell in the host: threads, descriptors and mappings of QEMU's process.
_PROCESS = """cd /proc/{pid} || exit 1
grep '^Threads:' status
for fd in fd/*; do echo "fd $(readlink $fd)"; done
grep -E '^[0-9a-f]+-[0-9a-f]+ |^Size:|^Rss:' smaps"""
#: What tells one descriptor from another of its kind.
_NUMBER = re.compile(r":(\d+|\[\d+\])$")


def rounds(machine: Machine) -> dict[int, dict[str, int]]:
    """Plug a CPU, have the guest bring it online, and unplug it, again and again: what QEMU held at each of LOOKS."""
    seen = {0: look(machine)}
    for number in range(1, LOOKS[-1] + 1):
        slot = SLOTS[number % len(SLOTS)]
        machine.raw_add(slot, f"raw-{slot}")
        machine.vm.shell(f"echo 1 > {machine.switch(slot)}", _WITHIN)
        assert machine.online() == {0, slot}
        machine.vm.qmp.execute("device_del", id=f"raw-{slot}")
        machine.vm.qmp.wait_event("DEVICE_DELETED", _WITHIN, device=f"raw-{slot}")
        machine.vm.qmp.wait_event("ACPI_DEVICE_OST", _WITHIN, slot=str(slot), source=3, status=0)
        if number in LOOKS:
            seen[number] = look(machine)
    return seen


def look(machine: Machine) -> dict[str, int]:
    """QEMU's process now: its threads, its descriptors by kind, and its memory in KiB without the guest's RAM."""
    assert machine.vcpuctl.host is not None
    return parse(machine.vcpuctl.host.vm.shell(_PROCESS.format(pid=machine.vm.pid), _WITHIN))


def parse(text: str) -> dict[str, int]:
    """What the shell's commands have said."""
    found: Counter[str] = Counter()
    size = 0
    for line in text.splitlines():
        head, _, rest = line.partition(" ")
        if head == "fd":
            # such as anon_inode:kvm-vcpu:1, socket:[1234]
            kind = "file" if rest.startswith("/") else _NUMBER.sub("", rest).removeprefix("anon_inode:")
            found["descriptors"] += 1
            found[f"descriptors: {kind}"] += 1
        elif line.startswith("Threads:"):
            found["threads"] = int(line.split()[1])
        elif line.startswith("Size:"):
            size = int(line.split()[1])
        elif line.startswith("Rss:") and size < _RAM_KIB:
            found["memory without the guest's RAM, KiB"] += int(line.split()[1])
    return dict(found)


def keep(machine: Machine, seen: Mapping[int, Mapping[str, int]]) -> None:
    """Write down what one QEMU held; tests run in several processes."""
    version = machine.vm.qmp.execute("query-version")["qemu"]
    named = ".".join(str(version[part]) for part in ("major", "minor", "micro"))
    found = {"qemu": named, "guest": machine.vm.shell("uname -r").strip(), "looks": seen}
    _PARTS.mkdir(parents=True, exist_ok=True)
    (_PARTS / f"{named}.json").write_text(json.dumps(found))


def clear() -> None:
    """Forget earlier runs."""
    shutil.rmtree(_PARTS, ignore_errors=True)


def write() -> None:
    """Put what this run has found together; nothing is written if there is nothing."""
    parts = [json.loads(path.read_text()) for path in sorted(_PARTS.glob("*.json"))]
    if not parts:
        return
    today = datetime.now(tz=UTC).date().isoformat()
    whole = {"schema_version": SCHEMA_VERSION, "date": today, "commit": report.commit(ROOT), "qemus": parts}
    report.write(ROOT / "build" / "kvm.json", whole)
    report.replace(ROOT / "build" / "kvm.md", _page(whole))


def _page(whole: Mapping[str, Any]) -> str:
    first, middle, last = map(str, LOOKS)
    lines = [
        f"QEMU's process under KVM before plugs and unplugs of a vCPU, after {middle} and after {last} of them, in an",
        f"emulated host (slots {', '.join(map(str, SLOTS))} in turn, each CPU brought online by the guest). Only what",
        f"changed is shown. {whole['date']}, commit {whole['commit']}.",
        "",
        f"| QEMU | guest | what | before | after {middle} | after {last} | from {middle} to {last}, a round |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for part in whole["qemus"]:
        looks = part["looks"]
        for what in sorted({name for each in looks.values() for name in each}):
            before, then, after = (looks[number].get(what, 0) for number in (first, middle, last))
            if before == then == after:
                continue
            each = (after - then) / (LOOKS[2] - LOOKS[1])
            lines.append(f"| {part['qemu']} | {part['guest']} | {what} | {before} | {then} | {after} | {each:+.2f} |")
    return "\n".join([*lines, ""])
