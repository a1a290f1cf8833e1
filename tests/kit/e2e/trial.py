# SPDX-License-Identifier: Apache-2.0
"""What is tried on every platform, each check by the lab's own eyes: QEMU's monitor and the guest's console."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kit import documents
from kit.e2e import matrix, numa
from kit.e2e.machine import Machine
from kit.e2e.platforms import Cell
from kit.ended import Ended
from kit.lab import LabError

OK, REFUSED = "ok", "refused as it must"
#: Seconds for a guest's whole restart, emulated on a busy machine, perhaps under an emulated KVM.
_REBOOT = 1800.0
#: How often slots are filled and emptied again.
_AGAIN = 20
#: Seconds for each time, on a busy machine.
_ROUND = 60.0
_PROGRAM = Path(__file__).with_name("again.py")


class Trial:
    """The checks in their order, on one VM. Each raises AssertionError, or says how it went."""

    def __init__(self, machine: Machine, cell: Cell) -> None:
        self.machine = machine
        self.cell = cell
        self.high, self.low = cell.slots
        self._again = f"re-plug {_AGAIN} times"
        self._both = ("--slot", str(self.high), str(self.low))
        self.checks: Mapping[str, Callable[[], str]] = {
            "list": self.list_is_right,
            "doctor": self.doctor,
            "plug": self.plug,
            "repeat": self.repeat,
            "out-of-order": self.out_of_order,
            "refusal": self.refusal,
            "offline, online": self.offline_online,
            "reboot": self.reboot,
            "scale": self.scale,
            "unplug": self.unplug,
            self._again: self.plug_again,
        }

    @property
    def together(self) -> tuple[str, ...]:
        """The names of the checks that are made on one VM."""
        return tuple(name for name in self.checks if name not in self.cell.apart)

    @property
    def hopeless(self) -> Mapping[str, str]:
        """The checks that are not made, and why."""
        if self.cell.kvm:
            return self.cell.hopeless
        return {self._again: "without KVM QEMU has a budget of plugs", **self.cell.hopeless}

    # -- what the lab sees -------------------------------------------------------------------------------------------

    def filled(self) -> dict[int, str]:
        """Slots with a CPU, and their QOM paths."""
        if self.cell.plug:
            return self.machine.filled()
        return {cpu["cpu-index"]: cpu["qom-path"] for cpu in self.machine.vm.qmp.execute("query-cpus-fast")}

    def online(self) -> dict[int, set[str]]:
        """By slot, the CPUs that the guest has online."""
        found: dict[int, set[str]] = {}
        for name, cpu in self.cell.cpus(self.machine.vm).items():
            if cpu["online"]:
                found.setdefault(self.cell.slot_of(name, cpu), set()).add(name)
        return found

    def state(self) -> object:
        """All that an operation could have changed."""
        return self.filled(), self.machine.vm.guest_cpus(), len(self.machine.sent("device_add")), self.dels()

    def dels(self) -> int:
        """How many removals were asked for."""
        return len(self.machine.sent("device_del"))

    def run(self, *words: str, status: int = 0, outcome: str = "done") -> Ended:
        """One command, that must end so."""
        ended = self.machine.vcpuctl(*words)
        assert ended.stdout, f"{words}: {ended.stderr}"
        assert (ended.status, ended.outcome) == (status, outcome), f"{words}: {ended.stdout} {ended.stderr}"
        return ended

    def refused(self, *words: str) -> Ended:
        """One command that must be refused in the plan: QEMU is asked for nothing, and nothing changes."""
        before = self.state()
        ended = self.run(*words, status=3, outcome="refused")
        assert self.state() == before, f"{words} changed something"
        return ended

    def whole(self, slot: int) -> None:
        """The slot is filled, under our id, and all of its threads are online, under the numbers that list gives."""
        assert self.filled()[slot] == f"/machine/peripheral/vcpu-{slot}"
        assert len(self.online()[slot]) == self.cell.threads
        self.list_is_right()

    # -- the checks --------------------------------------------------------------------------------------------------

    def list_is_right(self) -> str:
        """The map of slots to guest CPUs, and of both to NUMA nodes."""
        nodes = numa.nodes_of_cpus(self.machine.vm)
        listed = self.machine.vcpuctl.map()
        online: dict[int, set[str]] = {}
        for index, slot in listed.items():
            for thread in slot["threads"]:
                if thread["online"]:
                    name = f"cpu{thread['guest_cpu']}"
                    online.setdefault(index, set()).add(name)
                    # none on s390x, whose kernel shows no nodes
                    assert thread["guest_node"] == (nodes[name] if nodes else None), thread
                    assert None in (slot["node"], thread["guest_node"]) or slot["node"] == thread["guest_node"], slot
        assert online == self.online()
        assert {index for index, slot in listed.items() if slot["state"] != "empty"} == set(self.filled())
        return OK

    def doctor(self) -> str:
        """Nothing is wrong, but for what this machine cannot do."""
        ended = self.machine.vcpuctl("doctor")
        problems = {found["code"] for found in ended.json["findings"] if found["level"] == "problem"}
        assert problems == self.cell.problems, ended.stdout
        assert ended.status == (1 if problems else 0)
        return OK

    def plug(self) -> str:
        """One slot that is not the next one."""
        if not self.cell.plug:
            self.reason(self.refused("plug"), "no-hotplug")
            self.reason(self.refused("scale", "3"), "no-hotplug")
            return REFUSED
        self.run("plug", "--slot", str(self.high))
        self.whole(self.high)
        return OK

    def repeat(self) -> str:
        """The same again is done already."""
        if not self.cell.plug:
            self.run("offline", str(self.high))
        before = self.state()
        self.run(*(("plug", "--slot") if self.cell.plug else ("offline",)), str(self.high))
        assert self.state() == before
        return OK

    def out_of_order(self) -> str:
        """A lower slot after a higher one."""
        if not self.cell.plug:
            self.run("offline", str(self.low))
            self.list_is_right()
            self.run("online", str(self.high), str(self.low))
            assert set(self.online()) == set(self.filled())
            return OK
        self.run("plug", "--slot", str(self.low))
        self.whole(self.low)
        self.whole(self.high)
        return OK

    def refusal(self) -> str:
        """What cannot be is refused before anything is done, with the reason."""
        self.reason(self.refused("plug", "-n", "1000"), "not-enough" if self.cell.plug else "no-hotplug")
        reasons = {(True, True): "boot-cpu", (True, False): "no-unplug", (False, False): "no-hotplug"}
        wanted = reasons[self.cell.plug, self.cell.unplug]
        self.reason(self.refused("unplug", "--slot", "0"), wanted)
        return OK

    @staticmethod
    def reason(ended: Ended, code: str) -> dict[str, Any]:
        """The one reason of a refusal, which must have that code."""
        found: dict[str, Any] = ended.json["reason"] or ended.json["slots"][0]["reason"]
        assert found["code"] == code, found
        return found

    def offline_online(self) -> str:
        """The guest's side alone."""
        before = self.state()
        self.run("offline", str(self.low))
        assert self.low not in self.online()
        self.list_is_right()
        self.run("online", str(self.low))
        assert self.state() == before
        return OK

    def reboot(self) -> str:
        """The guest restarts with what was plugged; the same command finds all as it was."""
        vm = self.machine.vm
        vm.shell("sync; (busybox usleep 1000; reboot -ff) >/dev/null 2>&1 </dev/null &", 60)
        vm.qmp.wait_event("RESET", 60.0)
        vm.wait_shell(_REBOOT)
        vm.shell("until systemctl is-active --quiet vcpud; do busybox usleep 200000; done", _REBOOT)
        if self.machine.vcpuctl.host is not None:
            self.machine.vcpuctl.host.speak()
        wanted = ("plug", *self._both) if self.cell.plug else ("online", "1", "3")
        self.run(*wanted)
        self.list_is_right()
        assert set(self.online()) == set(self.filled())
        return OK

    def scale(self) -> str:
        """One more, wherever that is, and one less; where none can be plugged, in the guest alone."""
        there = len(self.filled())
        if not self.cell.plug:
            self.run("scale", "--in-guest", str(there - 1))
            assert len(self.online()) == there - 1
            self.run("scale", "--in-guest", str(there))
            assert set(self.online()) == set(self.filled())
            return OK
        self.run("scale", str((there + 1) * self.cell.threads))
        assert len(self.filled()) == there + 1
        assert set(self.online()) == set(self.filled())
        self.list_is_right()
        if not self.cell.unplug:
            offer = self.reason(self.refused("scale", str(self.cell.threads)), "no-unplug")["hint"]
            assert "offline" in offer, offer
            return OK
        self.run("scale", str(there * self.cell.threads))
        assert len(self.filled()) == there
        assert set(self.online()) == set(self.filled())
        self.list_is_right()
        return OK

    def unplug(self) -> str:
        """All that was plugged goes, and the end is as the start."""
        plugged = set(self.filled()) - {0}
        words = ("unplug", "--slot", *map(str, sorted(plugged)))
        if not self.cell.unplug:
            code = "no-unplug" if self.cell.plug else "no-hotplug"
            offer = self.reason(self.refused(*words), code)["hint"]
            assert "offline" in offer, offer
            self.reason(self.refused("unplug"), code)
            return REFUSED
        ended = self.run(*words)
        assert set(ended.slots) == plugged
        assert set(self.online()) == set(self.filled()) == {0}
        self.list_is_right()
        self.run(*words)
        return OK

    def plug_again(self) -> str:
        """The same slot, and every fourth time another one, comes and goes; the end is as the start."""
        host, vm = self.machine.vcpuctl.host, self.machine.vm
        assert host is not None, "where there is a budget of plugs, it is used up by this"
        before = self.filled(), vm.guest_cpus()
        began, sent = len(vm.kernel_log), len(self.machine.sent("device_add"))
        slots = [self.high if number % 4 == 3 else self.low for number in range(_AGAIN)]
        host.vm.put(_PROGRAM.read_bytes(), "/tmp/again.py")
        ended = host.run(["python3", "/tmp/again.py", str(vm.qmp_socket), *map(str, slots)], _AGAIN * _ROUND)
        assert ended.returncode == 0, ended.stderr
        documents.check_output(ended.stdout)
        results = [json.loads(line) for line in ended.stdout.splitlines()]
        assert [(result["outcome"], result["slots"][0]["slot"]) for result in results] == [
            ("done", slot) for slot in slots for _ in ("plug", "unplug")
        ]
        # by QEMU's and the kernel's own words
        assert [int(add["id"].removeprefix("vcpu-")) for add in self.machine.sent("device_add")[sent:]] == slots
        said = [line for _, line in vm.kernel_log[began:]]
        assert sum("Booting Node" in line for line in said) == sum("is now offline" in line for line in said) == _AGAIN
        assert (self.filled(), vm.guest_cpus()) == before
        self.list_is_right()
        return OK


def tried(cell: Cell, test: str, checks: Sequence[str] | None, machine: Machine) -> None:
    """Make these checks, or all that are made together, on one VM, and keep for the table what each gave."""
    described = matrix.describe(cell, machine)
    trial = Trial(machine, cell)
    results: dict[str, str] = {}
    failures: list[str] = []
    for name in checks or trial.together:
        if name in trial.hopeless:
            results[name] = f"not tried: {trial.hopeless[name]}"
            continue
        began = time.monotonic()
        try:
            results[name] = trial.checks[name]()
        except (AssertionError, LabError, subprocess.TimeoutExpired) as error:
            results[name] = f"failed: {(str(error).splitlines() or [repr(error)])[0][:200]}"
            failures.append(f"{name}: {error!r}")
        print(f"{cell.name}: {name} {results[name]}, {time.monotonic() - began:.1f} s", file=sys.stderr)
    matrix.keep(cell, test, {**described, "checks": results})
    assert failures == []
