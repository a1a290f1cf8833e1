# SPDX-License-Identifier: Apache-2.0
"""Over the floor, on real VMs: floor and ours in turn, so that a machine that slows down slows both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab import Lab, Vm, VmSpec

from bench import floor, ours

ROOT = Path(__file__).resolve().parents[2]
COLD = VmSpec(debs=ROOT / "build" / "deb")
#: Room for every plug of the warm cycles: under TCG a QEMU process has a plug budget (facts of the lab).
WARM = replace(COLD, smp="1,maxcpus=128,sockets=2,cores=32,threads=2")

Say = Callable[[str], None]


@dataclass
class Samples:
    """Seconds by operation ("plug_1" ...), of the floor and of ours, pair by pair; and of the whole process."""

    floor: dict[str, list[float]] = field(default_factory=dict)
    ours: dict[str, list[float]] = field(default_factory=dict)
    process: dict[str, list[float]] = field(default_factory=dict)

    def add(self, kind: dict[str, list[float]], count: int, up: float, down: float) -> None:
        """Put in one cycle of ``count`` vCPUs."""
        kind.setdefault(f"plug_{count}", []).append(up)
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
                samples.add(samples.ours, count, *ours.cycle(str(vm.qmp_socket), slots))
            with lab.vm(COLD) as vm:
                words = ("--slot", *map(str, slots))
                up = ours.process(str(vm.qmp_socket), "plug", *words)
                samples.add(samples.process, count, up, ours.process(str(vm.qmp_socket), "unplug", *words))
        say(f"cold: round {turn + 1} of {rounds}")
    return samples


def warm(lab: Lab, rounds: int, say: Say) -> Samples:
    """All cycles on one VM, after one of each that does not count."""
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
