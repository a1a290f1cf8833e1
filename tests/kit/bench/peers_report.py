# SPDX-License-Identifier: Apache-2.0
"""Figures of ``peers``, and the page for people (``build/peers.md``). Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from kit.bench import peers

#: Why each ratio is what it is.
REASONS: Mapping[str, str] = {
    "plug": (
        "vcpuctl is one process: it loads Python, libvirt's module and gRPC, looks at QEMU, the guest and libvirt's "
        "record, and plugs by virDomainSetVcpu; vcpud brings the CPU online as soon as the firmware has told of it. "
        "virsh is two processes that start fast; the second one is repeated until the guest and libvirt agree, which "
        "is mostly at once."
    ),
    "unplug": (
        "virsh waits inside libvirt for QEMU's DEVICE_DELETED, 5 s for each vCPU, and reports a timeout: under TCG the "
        "event comes with the next change of the machine's memory map, long after the CPU is gone. It is then told "
        "again, for each vCPU. vcpuctl has libvirt begin the removal (VIR_DOMAIN_SETVCPU_ASYNC_UNPLUG), sees the empty "
        "slot in QEMU, and has libvirt notice it. Under KVM the event comes at once, and virsh does not wait."
    ),
    "ssh": (
        "The connection is made by ssh, twice (the channel has one of its own), and each look costs its way there and "
        "back."
    ),
}


def figures(samples: peers.Samples) -> dict[str, Any]:
    """Return the ratios of medians, with what they come from (seconds)."""
    seconds = samples.seconds
    medians = {operation: {who: _median(values) for who, values in each.items()} for operation, each in seconds.items()}
    both = [
        [up + down for up, down in zip(seconds["plug_1"][who], seconds["unplug_1"][who], strict=True)]
        for who in ("ssh", "ours")
    ]
    return {
        "rounds": samples.rounds,
        "not_done": samples.not_done,
        "virsh_ratio": {name: round(each["ours"] / each["virsh"], 3) for name, each in medians.items()},
        "ssh_ratio": round(_median(both[0]) / _median(both[1]), 3),
        "medians": {name: {who: round(value, 4) for who, value in each.items()} for name, each in medians.items()},
        "least": {who: round(_median(values), 4) for who, values in samples.least.items()},
        "reasons": {**{name: REASONS[name.partition("_")[0]] for name in medians}, "ssh": REASONS["ssh"]},
        "seconds": {
            name: {who: [round(value, 4) for value in values] for who, values in each.items()}
            for name, each in seconds.items()
        },
    }


def page(found: Mapping[str, Any], samples: peers.Samples) -> str:
    """Return the page."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "# vcpuctl beside virsh setvcpus",
        "",
        "Written by `make bench PEERS=1` ([how](../tried.md#beside-virsh)). One guest, one libvirt, one run; who",
        f"begins changes from round to round. {found['rounds']} rounds; {versions}.",
        "",
        "| operation | virsh, s (median, least to most) | vcpuctl, s | vcpuctl over ssh, s | vcpuctl / virsh |",
        "| --- | --- | --- | --- | --- |",
    ]
    for operation, each in samples.seconds.items():
        shown = [_spread(each.get(who, ())) for who in ("virsh", "ours", "ssh")]
        lines.append(f"| {operation} | {' | '.join(shown)} | {found['virsh_ratio'][operation]} |")
    idle = [f"{found['least'][who]:.3f} s" for who in ("virsh", "ours")]
    lines += [
        "",
        *(f"Not done, and its round not counted: {what}" for what in found["not_done"]),
        "Up: until the guest's kernel has said of the last CPU that it starts it. Down: until the end of the command",
        "after which the CPUs are gone from the guest, from QEMU and from libvirt's record.",
        f"Over ssh a plug and an unplug of one vCPU take {found['ssh_ratio']} of the time of the local ones.",
        f"What does next to nothing takes {idle[0]} (`virsh domid`) and {idle[1]} (`vcpuctl --version`).",
        "",
        "Why:",
        "",
        *(f"- {name}: {REASONS[name]}" for name in REASONS),
        "",
        "What each command said, and which vCPUs were there then, in a cycle that is not timed (after each command the",
        "lab looks at all sides, which gives the guest time):",
        "",
        "| operation | command | status | after, s | online in the guest | in QEMU | in libvirt's record | its words |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for operation, by_whom in samples.shown.items():
        for said in (said for commands in by_whom.values() for said in commands):
            sides = [_numbers(said.sides[side]) for side in ("guest", "qemu", "libvirt")]
            words = said.stderr.replace("\n", " ").replace("|", "/")
            cells = (operation, f"`{said.words}`", str(said.status), f"{said.after:.2f}", *sides, words)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _spread(values: Sequence[float]) -> str:
    return f"{_median(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else ""


def _numbers(slots: Sequence[int]) -> str:
    return ", ".join(map(str, slots))
