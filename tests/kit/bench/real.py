# SPDX-License-Identifier: Apache-2.0
"""Over the floor, on real VMs: floor, the least agent and ours in turn, so that a machine that slows down slows all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from kit.bench import floor, least, ours
from kit.lab import Lab, Vm, VmSpec

ROOT = Path(__file__).resolve().parents[3]
COLD = VmSpec(debs=ROOT / "build" / "deb")
#: Room for every plug of the warm cycles: under TCG a QEMU process has a plug budget (facts of the lab).
WARM = replace(COLD, smp="1,maxcpus=160,sockets=5,cores=16,threads=2")

Say = Callable[[str], None]


@dataclass
class Samples:
    """Seconds by operation ("plug_1" ...): the floor and ours, pair by pair; the whole process, and the least agent.

    The least agent only plugs: down, it would be the floor.
    """

    floor: dict[str, list[float]] = field(default_factory=dict)
    ours: dict[str, list[float]] = field(default_factory=dict)
    process: dict[str, list[float]] = field(default_factory=dict)
    least: dict[str, list[float]] = field(default_factory=dict)

    def add(self, kind: dict[str, list[float]], count: int, up: float, down: float | None = None) -> None:
        """Put in one cycle of ``count`` vCPUs, or its first half."""
        kind.setdefault(f"plug_{count}", []).append(up)
        if down is not None:
            kind.setdefault(f"unplug_{count}", []).append(down)


def slots_for(count: int) -> list[int]:
    """The slots that a cycle uses: the lowest ones."""
    return list(range(1, count + 1))


def cold(lab: Lab, rounds: int, say: Say) -> Samples:
    """Every cycle on a VM that was just restored and has never had a second CPU."""
    samples = Samples()
    for turn in range(rounds):
        for count in (1, 8):
            slots = slots_for(count)
            with lab.vm(COLD) as vm:
                samples.add(samples.floor, count, *_floor(vm, slots))
            with lab.vm(COLD) as vm:
                samples.add(samples.least, count, least.plug(vm, slots))
            with lab.vm(COLD) as vm:
                samples.add(samples.ours, count, *ours.cycle(str(vm.qmp_socket), slots))
            with lab.vm(COLD) as vm:
                words = ("--slot", *map(str, slots))
                up = ours.process(str(vm.qmp_socket), "plug", *words)
                samples.add(samples.process, count, up, ours.process(str(vm.qmp_socket), "unplug", *words))
        say(f"cold: round {turn + 1} of {rounds}")
    return samples


def warm(lab: Lab, rounds: int, say: Say) -> Samples:
    """All cycles on one VM, after one that does not count; the least agent's on another, for its plug budget."""
    samples = Samples()
    with lab.vm(WARM) as vm:
        ours.cycle(str(vm.qmp_socket), slots_for(8))
        for turn in range(rounds):
            for count in (1, 8):
                slots = slots_for(count)
                samples.add(samples.floor, count, *_floor(vm, slots))
                # The agent catches up on what it slept through before ours is measured.
                ours.process(str(vm.qmp_socket), "list")
                samples.add(samples.ours, count, *ours.cycle(str(vm.qmp_socket), slots))
            say(f"warm: round {turn + 1} of {rounds}")
    with lab.vm(WARM) as vm:
        ours.cycle(str(vm.qmp_socket), slots_for(8))
        for _ in range(rounds):
            for count in (1, 8):
                samples.add(samples.least, count, least.plug(vm, slots_for(count)))
                ours.process(str(vm.qmp_socket), "scale", "1")
        say("warm: the least agent")
    return samples


def _floor(vm: Vm, slots: list[int]) -> tuple[float, float]:
    floor.agent_stopped(vm)
    try:
        return floor.plug(vm, slots), floor.unplug(vm, slots)
    finally:
        floor.agent_running(vm)


def agent_rss_mb(vm: Vm) -> float:
    """Resident memory of vcpud in the guest, in MB (10**6 bytes), after it has served a host."""
    ours.cycle(str(vm.qmp_socket), slots_for(1))
    kilobytes = vm.shell("awk '/^VmRSS/ {print $2}' /proc/$(systemctl show -P MainPID vcpud)/status")
    return int(kilobytes) * 1024 / 1e6


def agent_wakeups_per_min(vm: Vm, seconds: int = 60) -> float:
    """How often vcpud's threads wake up while nothing happens and no host is there, in one minute.

    Counted thread by thread: gRPC's end with its server, and take their counts with them.
    """
    before = _switches(vm)
    vm.shell(f"sleep {seconds}", timeout=seconds + 30)
    woken = sum(count - before.get(thread, 0) for thread, count in _switches(vm).items())
    return woken * 60 / seconds


def _switches(vm: Vm) -> dict[str, int]:
    """Voluntary context switches of each thread of vcpud."""
    listing = vm.shell("grep -H ^voluntary /proc/$(systemctl show -P MainPID vcpud)/task/*/status")
    return {line.split("/")[4]: int(line.split()[-1]) for line in listing.splitlines()}
