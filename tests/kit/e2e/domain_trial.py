# SPDX-License-Identifier: Apache-2.0
"""What is tried on every domain, by one way to its libvirt; each check is judged in the guest, QEMU and libvirt.

Each step says which slots have a CPU after it, and the three sides must say the same.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from kit.e2e import domain_table
from kit.e2e.domains import DomainMachine, LibvirtVcpuctl, all_three, save_and_restore
from kit.e2e.lines import JsonLines
from kit.ended import Ended
from kit.lab import LabError
from kit.lab.virt.domain_xml import Vcpu

OK, REFUSED = "ok", "refused as it must"
#: Seconds for a line of watch's, on a busy machine.
_LINE = 90.0


@dataclass(frozen=True)
class Case:
    """A domain of a suite, by one of its host's ways; ``changes`` are those of the standard spec."""

    suite: str
    way: str
    domain: str = "cores"
    changes: Mapping[str, Any] = field(default_factory=dict)
    #: Slots with a CPU from the start; ``fixed`` are those that libvirt keeps.
    start: tuple[int, ...] = (0,)
    fixed: tuple[int, ...] = (0,)
    #: Two slots to plug, the higher one first.
    slots: tuple[int, int] = (5, 3)

    @property
    def name(self) -> str:
        """For the test's own name."""
        return f"{self.suite}-{self.domain}-{self.way}".replace(" ", "-").replace(",", "")

    @property
    def asynchronous(self) -> bool:
        """Whether its libvirt begins a removal without waiting, and so can be told of one that it has missed."""
        return self.suite != "bookworm"

    @property
    def dies_of_replug(self) -> bool:
        """Whether its QEMU under TCG dies of a plug after an unplug, so that none may be sent (7.2)."""
        return self.suite == "bookworm"


#: Sockets of dies, NUMA cells, two CPUs that stay and two that were there at the start and may go.
_LEVELS: Mapping[str, Any] = {
    "topology": (2, 2, 2, 2),
    "cells": ("0-7", "8-15"),
    "vcpus": (Vcpu(0, hotpluggable=False), Vcpu(1, hotpluggable=False), Vcpu(5), Vcpu(3)),
}
_levels = replace(Case("", "", "dies, cells, vcpus", _LEVELS), start=(0, 1, 3, 5), fixed=(0, 1), slots=(9, 2))
CASES = (
    Case("sid", "unix"),
    Case("sid", "tcp"),
    Case("sid", "ssh"),
    replace(_levels, suite="sid", way="unix"),
    replace(_levels, suite="sid", way="ssh"),
    Case("bookworm", "unix"),
    Case("bookworm", "tcp"),
    Case("bookworm", "ssh"),
    replace(_levels, suite="bookworm", way="unix"),
)
#: What QEMU 7.2 does not survive under TCG, and so is not tried.
_HOPELESS = dict.fromkeys(
    ("save, restore: unplugged", "save, restore: scaled down"), "not tried: QEMU 7.2 dies of a save after an unplug"
)
_URIS = {"unix": "uri", "tcp": "tcp_uri", "ssh": "ssh_uri"}


class DomainTrial:
    """The checks in their order, on one domain. Each raises AssertionError, or says how it went."""

    def __init__(self, machine: DomainMachine, case: Case) -> None:
        self.machine = machine
        self.case = case
        self.high, self.low = case.slots
        self.slots = set(case.start)
        self.checks: Mapping[str, Callable[[], str]] = {
            "list": self.list_is_right,
            "doctor": self.doctor,
            "plan": self.plan,
            "refusals": self.refusals,
            "plug": self.plug,
            "plug, repeated": self.plug,
            "plug, out of order": self.out_of_order,
            "plug, a number": self.number,
            "save, restore: plugged": self.saved,
            "offline": self.offline,
            "save, restore: offline": self.saved,
            "online": self.online,
            "scale up": self.scale_up,
            "watch": self.watch,
            "--without-agent": self.without_agent,
            "unplug": self.unplug,
            "unplug, repeated": self.unplug,
            "plug after an unplug": self.plug_again,
            "save, restore: unplugged": self.saved,
            "scale down": self.scale_down,
            "save, restore: scaled down": self.saved,
        }

    @property
    def vcpuctl(self) -> LibvirtVcpuctl:
        """By the case's way."""
        return self.machine.by(getattr(self.machine.domain.host, _URIS[self.case.way]))

    def run(self, *words: str, status: int = 0, outcome: str = "done") -> Ended:
        """One command, that must end so."""
        ended = self.vcpuctl(*words)
        assert ended.stdout, f"{words}: {ended.stderr}"
        assert (ended.status, ended.outcome) == (status, outcome), f"{words}: {ended.stdout} {ended.stderr}"
        return ended

    def agreed(self, *, offline: frozenset[int] = frozenset()) -> None:
        """Guest, QEMU and libvirt have the CPUs that they are to have."""
        wanted = {**all_three(*self.slots), "guest": sorted(self.slots - offline)}
        found = self.machine.sides()
        assert found == wanted, f"{found}, not {wanted}"

    def refused(self, code: str, *words: str) -> None:
        """One command that must be refused in the plan: nobody is asked for anything."""
        before = self.set_calls()
        ended = self.run(*words, status=3, outcome="refused")
        reason = ended.json["reason"] or ended.json["slots"][0]["reason"]
        assert reason["code"] == code, reason
        assert self.set_calls() == before
        self.agreed()

    def set_calls(self) -> int:
        """How often libvirt was asked to change vCPUs."""
        return len(self.machine.domain.host.calls("virDomainSetVcpu"))

    # -- the checks --------------------------------------------------------------------------------------------------

    def list_is_right(self) -> str:
        """The map of slots to guest CPUs, and of both to NUMA cells."""
        listed = self.vcpuctl("list")
        assert listed.status == 0, listed.stderr
        assert listed.json["agent"]["connected"], listed.stdout
        states = {slot: each["state"] for slot, each in listed.slots.items() if each["state"] != "empty"}
        assert states == dict.fromkeys(self.slots, "online")
        for slot in self.slots - set(self.case.fixed):
            assert listed.slots[slot]["id"] == f"vcpu{slot}"
            assert listed.slots[slot]["removable"]
        assert not any(listed.slots[slot]["removable"] for slot in self.case.fixed)
        if self.case.changes.get("cells"):
            assert {slot: each["node"] for slot, each in listed.slots.items()} == {n: n // 8 for n in range(16)}
        self.agreed()
        return OK

    def doctor(self) -> str:
        """Nothing is wrong."""
        ended = self.vcpuctl("doctor")
        problems = [found for found in ended.json["findings"] if found["level"] == "problem"]
        assert (ended.status, problems) == (0, []), ended.stdout
        return OK

    def plan(self) -> str:
        """What would be done is told, and nothing is done."""
        before = self.set_calls()
        ended = self.vcpuctl("plan", "plug", "--slot", str(self.high))
        assert ended.status == 0, ended.stdout
        assert [step["slot"] for step in ended.json["steps"]] == [self.high]
        assert self.set_calls() == before
        self.agreed()
        return OK

    def refusals(self) -> str:
        """What cannot be is refused with the reason."""
        self.refused("not-enough", "plug", "-n", "1000")
        self.refused("boot-cpu", "unplug", "--slot", "0")
        if 1 in self.case.fixed:
            self.refused("not-hotpluggable", "unplug", "--slot", "1")
        return REFUSED

    def plug(self) -> str:
        """One slot that is not the next one."""
        self.run("plug", "--slot", str(self.high))
        self.slots.add(self.high)
        return self.list_is_right()

    def out_of_order(self) -> str:
        """A lower slot after a higher one."""
        self.run("plug", "--slot", str(self.low))
        self.slots.add(self.low)
        return self.list_is_right()

    def number(self) -> str:
        """One more, whichever is the lowest."""
        lowest = min(set(range(16)) - self.slots)
        ended = self.run("plug", "-n", "1")
        assert set(ended.slots) == {lowest}
        self.slots.add(lowest)
        return self.list_is_right()

    def offline(self) -> str:
        """The guest's side alone."""
        before = self.set_calls()
        self.run("offline", str(self.high))
        self.agreed(offline=frozenset({self.high}))
        assert self.set_calls() == before
        return OK

    def online(self) -> str:
        """The guest's side alone."""
        self.run("online", str(self.high))
        return self.list_is_right()

    def scale_up(self) -> str:
        """Two more."""
        ended = self.run("scale", str(len(self.slots) + 2))
        assert len(ended.slots) == 2
        self.slots |= set(ended.slots)
        return self.list_is_right()

    def watch(self) -> str:
        """Who watches sees what another command does."""
        process = self.vcpuctl.start("watch")
        try:
            lines = JsonLines(process)
            lines.until(lambda _: True, _LINE)
            for word, state in (("offline", "offline"), ("online", "online")):
                self.run(word, str(self.low))
                lines.until(partial(_shows, self.low, state), _LINE)
            process.send_signal(signal.SIGINT)
            assert lines.finish(_LINE) == 0
        finally:
            process.kill()
        self.agreed()
        return OK

    def without_agent(self) -> str:
        """A CPU that the guest is left alone with, in the last slot, comes and goes: it is not brought online."""
        last = max(set(range(16)) - self.slots)
        plugged = self.run("plug", "--without-agent", "--slot", str(last))
        assert plugged.code(last) == "not-verified"
        wanted = all_three(*self.slots, last)
        assert self.machine.sides() == {**wanted, "guest": sorted(self.slots)}
        gone = self.run("unplug", "--without-agent", "--slot", str(last))
        assert gone.code(last) in {"not-verified", "record-behind"}, gone.stdout
        return self.left()

    def unplug(self) -> str:
        """The slot that was plugged first goes."""
        ended = self.run("unplug", "--slot", str(self.high))
        self.slots.discard(self.high)
        assert ended.code(self.high) in {None, "already", "record-behind"}
        return self.left()

    def scale_down(self) -> str:
        """All go that may."""
        self.run("scale", str(len(self.case.fixed)))
        self.slots = set(self.case.fixed)
        return self.left()

    def left(self) -> str:
        """After a removal: a libvirt that cannot be told of what it missed is restarted, as the result advises."""
        said = OK
        if not self.case.asynchronous:
            behind = set(self.machine.domain.record()) - self.slots
            if behind:
                assert self.vcpuctl("doctor").status == 1
                self.machine.domain.host.restart_daemon()
                said = "ok, once libvirtd is restarted"
        self.list_is_right()
        return said

    def plug_again(self) -> str:
        """The same slot, where QEMU survives it."""
        if self.case.dies_of_replug:
            self.refused("tcg-replug", "plug", "--slot", str(self.high))
            return REFUSED
        self.plug()
        return self.unplug()

    def saved(self) -> str:
        """``virsh save`` and ``restore``, and all CPUs are as before."""
        before = self.machine.sides()
        save_and_restore(self.machine)
        after = self.machine.sides()
        assert after == before, f"{after} after the restore, {before} before"
        assert self.vcpuctl("list").json["agent"]["connected"]
        return OK


def _shows(slot: int, state: str, document: Mapping[str, Any]) -> bool:
    """Whether a document of watch's has the slot in that state."""
    return bool(document["slots"][slot]["state"] == state)


def tried(case: Case, machine: DomainMachine) -> None:
    """Make all checks on one domain, and keep for the table what each gave; the first failure ends it."""
    domain = machine.domain
    trial = DomainTrial(machine, case)
    qemu = domain.qmp.execute("query-version")["qemu"]
    described = {
        "libvirt": domain.host.ask("--version").strip(),
        "QEMU": ".".join(str(qemu[part]) for part in ("major", "minor", "micro")),
        "domain": case.domain,
        "way": case.way,
    }
    results: dict[str, str] = {}
    try:
        for name, check in trial.checks.items():
            if case.dies_of_replug and name in _HOPELESS:
                results[name] = _HOPELESS[name]
                continue
            began = time.monotonic()
            results[name] = "failed"
            try:
                results[name] = check()
            except (AssertionError, LabError, subprocess.TimeoutExpired) as error:
                results[name] = f"failed: {(str(error) or repr(error)).replace(chr(10), ' ')[:200]}"
                raise
            finally:
                print(f"{case.name}: {name} {results[name]}, {time.monotonic() - began:.1f} s", file=sys.stderr)
    finally:
        domain_table.keep(case.name, described, results)
