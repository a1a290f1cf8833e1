# SPDX-License-Identifier: Apache-2.0
"""A VM that migrates with the help of ``vcpuctl``: what it has before and after, and a load that runs all the while."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from kit.e2e import guestfirst
from kit.e2e.machine import Machine, Vcpuctl
from kit.ended import Ended
from kit.lab import Lab, Road, Vm, VmSpec

#: Seconds in which a process that runs has done something, on a busy machine.
_SOON = 30.0
#: Shell in the guest: two processes that count for as long as they live, into a file each.
_LOAD = """mkdir -p /run/load; for n in 1 2; do
    (i=0; while :; do i=$((i + 1)); echo $i > /run/load/$n; done) </dev/null >/dev/null 2>&1 & echo $! > /run/load/pid$n
done"""
#: Shell in the guest: what they have counted by now, beside their ids. A file that is just being written is empty.
_COUNTED = """for n in 1 2; do
    read -r pid < /run/load/pid$n; count=
    while [ -z "$count" ] && kill -0 $pid; do read -r count < /run/load/$n; done
    echo "$pid $count"
done"""


class Journey:
    """``here`` is the VM where it runs now, with a ``vcpuctl`` for it."""

    def __init__(self, road: Road) -> None:
        self.road = road
        self._start = guestfirst.look(road.vm)
        #: The QEMUs that have or had the VM, or wait for it, with what each was started with.
        self.seen: list[tuple[Vm, dict[str, int]]] = [(road.vm, dict(self._start.slots))]
        self.here = Machine(road.vm, Vcpuctl(road.vm))

    def export(self) -> dict[str, Any]:
        """``vcpuctl export``, which must work."""
        ended = self.here.vcpuctl("export")
        assert ended.status == 0, ended.stderr
        return ended.json

    def waiting(self, *, arguments: list[str] | None = None, qemu: str = "", **changes: object) -> Vm:
        """A QEMU that waits for the VM; started as the export says, if no arguments are given."""
        vm = self.road.waiting(arguments or self.export()["arguments"], qemu=qemu, **changes)
        self.seen.append((vm, guestfirst.filled(vm)))
        return vm

    def check(self, destination: Vm, step: str = "check") -> Ended:
        """``vcpuctl migrate check`` or ``prepare``."""
        return self.here.vcpuctl("migrate", step, "--to", str(destination.qmp_socket))

    def guest_first(self) -> None:
        """Hold the record of each QEMU against promise 2. The guest is one, and speaks on the console of its QEMU."""
        kernel = sorted(line for vm, _ in self.seen for line in vm.kernel_log)
        for vm, slots in self.seen:
            guestfirst.check(vm, replace(self._start, slots=slots), kernel)

    def arrived(self, destination: Vm) -> None:
        """The VM is there now."""
        self.here = Machine(destination, Vcpuctl(destination))

    def travel(self, *, qemu: str = "") -> None:
        """All of it, as an operator would: export, start, check, migrate. Nothing of what the VM has may change."""
        before = self.shape()
        destination = self.waiting(qemu=qemu)
        checked = self.check(destination)
        assert (checked.status, checked.outcome) == (0, "done"), checked.stdout
        self.road.go(destination)
        self.arrived(destination)
        after = self.shape()
        ids = {index: slot[1] for index, slot in after["slots"].items()}
        for index, (_, given, _) in before["slots"].items():
            # a boot CPU stays one, or gets the id that its slot would have given it
            assert ids[index] == given or (given is None and ids[index] == f"vcpu-{index}"), f"slot {index}: {ids}"
        for whole in (before, after):
            whole["slots"] = {index: (state, cpus) for index, (state, _, cpus) in whole["slots"].items()}
        assert after == before, f"before {before}\nafter  {after}"

    def shape(self) -> dict[str, Any]:
        """What must be the same on both sides, by the product's eyes and by the lab's."""
        listed = self.here.vcpuctl.map()
        assert {index for index, slot in listed.items() if slot["state"] != "empty"} == set(self.here.filled())
        return {
            "slots": {
                index: (slot["state"], slot["id"], [t["guest_cpu"] for t in slot["threads"]])
                for index, slot in listed.items()
                if slot["state"] != "empty"
            },
            "guest": {name: (cpu["online"], cpu["path"]) for name, cpu in self.here.vm.guest_cpus().items()},
        }

    def online(self) -> set[int]:
        """The slots whose CPUs are online, all of them, in the guest and by ``vcpuctl list``."""
        shape = self.shape()
        assert all(online for online, _ in shape["guest"].values()), shape
        assert {state for state, _, _ in shape["slots"].values()} == {"online"}, shape
        numbers = sorted(number for _, _, threads in shape["slots"].values() for number in threads)
        assert [f"cpu{number}" for number in numbers] == sorted(shape["guest"], key=_number), shape
        return set(shape["slots"])

    def load(self) -> None:
        """Have the guest compute, and return when it does."""
        self.here.vm.shell(_LOAD)
        self.here.vm.shell("until [ -s /run/load/1 ] && [ -s /run/load/2 ]; do :; done", 60.0)

    def counts(self) -> dict[str, int]:
        """How far the processes of the load have come, by their ids; one that has ended fails the test."""
        lines = (line.split() for line in self.here.vm.shell(_COUNTED, 60.0).splitlines())
        return {pid: int(count) for pid, count in lines}

    def loaded_on(self, before: dict[str, int]) -> None:
        """Each process of the load counts on: fail if one has not done so within half a minute."""
        until = time.monotonic() + _SOON
        while True:
            now = self.counts()
            stuck = [pid for pid in before if now.get(pid, 0) <= before[pid]]
            if not stuck:
                return
            assert time.monotonic() < until, f"{stuck} do not run: before {before}, now {now}"

    def keep(self, folder: Path) -> None:
        """Put what a failure leaves to look at below ``folder``."""
        for number, (vm, _) in enumerate(self.seen):
            vm.collect(folder / f"vm{number}")
            print(f"kept: {folder / f'vm{number}'}", file=sys.stderr)


def _number(name: str) -> int:
    return int(name.removeprefix("cpu"))


@contextmanager
def journey(
    lab: Lab, spec: VmSpec, *others: str, kept: Path, failed: Callable[[], bool] = lambda: False
) -> Iterator[Journey]:
    """A VM that may migrate to QEMUs of its version and of the ``others``.

    At the end the record of each of the QEMUs that had it is held against promise 2, as for every e2e test; what a
    test that has ``failed`` leaves is put below ``kept``.
    """
    with lab.road(spec, *others) as road:
        whole = Journey(road)
        try:
            yield whole
        except BaseException:
            whole.keep(kept)
            raise
        if failed():
            whole.keep(kept)
        whole.guest_first()
