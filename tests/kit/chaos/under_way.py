# SPDX-License-Identifier: Apache-2.0
"""One turn: an operation with its faults, and the ``scale`` after them that must succeed."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from kit.chaos import judge
from kit.chaos.choice import Fault, Turn, When
from kit.chaos.command import Command
from kit.chaos.faults import Faults
from kit.chaos.judge import Seen, said
from kit.chaos.report import Agent, Report
from kit.chaos.world import OwnTroubleError, World
from kit.e2e.guestfirst import Violation
from kit.ended import Ended
from kit.lab import WaitTimeoutError

#: The bound for the ``scale`` after the faults: its own, and what may come on top for its process (seconds).
SETTLE, GRACE = 120, 30.0
#: Seconds that a fault waits for the device_add or device_del that it is to follow.
_MOMENT = 15.0
#: Faults after which it is not the product's doing, or not only, what the VM looks like.
_MEDDLING = {
    *(
        "raw-add",
        "raw-del",
        "operator-plug",
        "operator-unplug",
        "guest-offline",
        "guest-online",
        "onliner",
        "foreign-name",
    ),
    *("second-vcpuctl", "revert", "move", "reboot", "reset"),
}
#: Faults that bring a CPU online at any moment, so also in the one between the last look at it and its device_del, and
#: how vcpuctl calls what came about.
_ONLINING, _SLIPPED = {"guest-online", "onliner"}, "ejected-online"
#: Seconds from the kernel's word that it starts a CPU: until it is online, before which it is offline for everybody who
#: looks, and until a device_del can have been sent that was right at the last look.
_START, _WINDOW = 0.1, 0.25


class UnderWay:
    """One turn under way."""

    def __init__(self, world: World, chosen: Turn, report: Report) -> None:
        self.turn = chosen
        #: Violations, whatever the VM was in.
        self.found: list[str] = []
        #: Violations, unless the environment had trouble of its own by then: the VM did not come to what it should.
        self.doubtful: list[str] = []
        self.summary = "not begun"
        self._world = world
        self._report = report
        self._faults = Faults(world)
        self._stack = ExitStack()
        self._done: list[Command] = []
        self._restarted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for other in self._faults.others:
            other.close()
        self._stack.close()

    def said(self) -> list[dict[str, Any]]:
        """What every process of vcpuctl that has ended said."""
        return [
            {"words": said(c.words), "status": c.ended().status, "stdout": c.ended().stdout, "stderr": c.ended().stderr}
            for c in [*self._done, *self._faults.others]
            if not c.running
        ]

    def operate(self) -> None:
        """The operation and its faults, up to the end of both; judged as far as it can be."""
        if "revert" in self._names:
            with self._report.spending("snapshot"):
                self._world.home.snapshot()
        before = len(self._world.commands())
        for fault in self.turn.faults:
            if fault.when is When.BEFORE:
                self._fault(fault)
        began = time.monotonic()
        operation = self._start(self.turn.words, self.turn.timeout)
        self._faults.operation = operation
        late = []
        for fault in self.turn.faults:
            if fault.when is not When.BEFORE:
                late.append(not self._await(fault, operation, before))
                self._fault(fault)
        self._end(operation)
        self._report.spent["operations"] += time.monotonic() - began  # type: ignore[assignment]
        self._truth(operation)
        for other in self._faults.others:
            self._end(other)
        status = operation.ended().status
        self.summary = f"status {status}" + (f", {sum(late)} faults after its end" if any(late) else "")
        self._report.outcomes[self._outcome(operation)] += 1
        commands = [command for _, command in self._world.commands()[before:]]
        at_work = [operation.words, *(other.words for other in self._faults.others)]
        self.found += judge.told(at_work, commands)

    def settle(self) -> None:
        """All faults over: one ``scale`` must succeed, and ``list`` must agree with what is seen."""
        with self._report.spending("mending"):
            process, rss_kb, descriptors = self._world.mend()
        self._report.agents.append(Agent(process, self.turn.number, rss_kb, descriptors))
        scaled = self._scale()
        with self._report.spending("list"):
            seen = self._list()
        if scaled is not None:
            self.found += judge.truth(self._goal, scaled, seen)
            self.found += self._world.home.disagreements()
        if self.turn.repeat and not self.found and not self.doubtful:
            before = len(self._world.commands())
            scaled = self._scale()
            if scaled is not None:
                self.found += judge.truth(self._goal, scaled, self._world.see())
            told = [command for _, command in self._world.commands()[before:]]
            self.found += judge.told([("scale said twice",)], told)
        for violation in self._world.guest_first():
            if self._slipped(violation):
                self._world.held["online again"] += 1
            else:
                self.found.append(f"promise 2: {violation}")
        self.found += [f"a vcpuctl is left: pid {pid}" for pid in processes_of(self._world.options[-1])]

    @property
    def _names(self) -> set[str]:
        return {fault.name for fault in self.turn.faults}

    def _slipped(self, violation: Violation | str) -> bool:
        """Whether the CPU was being started, or came online in the moment that nobody can close, and it was told."""
        if isinstance(violation, str) or not self._names & _ONLINING:
            return False
        told = any(_SLIPPED in command["stdout"] or command["status"] < 0 for command in self.said())
        return violation.when - violation.since <= (_WINDOW if told else _START)

    def _list(self) -> Seen:
        """``list`` agrees with what is seen, which is told."""
        ended = self._run(("list",), 30)
        seen = self._world.see()
        document = judge.document_of(ended) if ended is not None else None
        if document is not None and "slots" in document:
            self.doubtful += judge.listed(document, seen)
        else:
            self.doubtful.append(f"list: {ended}")
        return seen

    @property
    def _goal(self) -> tuple[str, str]:
        return ("scale", str(self.turn.goal))

    def _scale(self) -> Ended | None:
        """How it ended, if it succeeded as it must."""
        with self._report.spending("scale"):
            ended = self._run(self._goal, SETTLE)
        if ended is None or ended.status == 0:
            return ended
        slots = (judge.document_of(ended) or {}).get("slots", [])
        refused = [slot["slot"] for slot in slots if slot["outcome"] == "refused"]
        if self._world.reserved and refused and (refusal := self._world.guest_says_no(refused)):
            raise OwnTroubleError(f"deadline reservations miscounted: {refusal}")
        self.doubtful.append(f"{said(self._goal)} after all faults were over: status {ended.status}: {ended.stdout}")
        return None

    def _run(self, words: tuple[str, ...], timeout: int) -> Ended | None:
        command = self._start(words, timeout)
        self._end(command)
        return None if command.killed else command.ended()

    def _start(self, words: tuple[str, ...], timeout: int) -> Command:
        command = Command(self._world.options, words, timeout, self._world.home.environment)
        self._done.append(command)
        self._stack.callback(command.close)
        return command

    def _fault(self, fault: Fault) -> None:
        self._report.faults[fault.name] += 1
        try:
            with self._report.spending(f"fault {fault.name}"):
                self._faults.do(fault)
        except WaitTimeoutError:
            # A guest that boots has no shell for the faults that come after; whether it comes back is judged by mend().
            if not self._restarted:
                raise
        self._restarted |= fault.name in ("reboot", "reset")

    def _await(self, fault: Fault, operation: Command, before: int) -> bool:
        """Wait for the fault's moment; whether it came before the operation's end."""

        def there() -> bool:
            told = self._world.commands()[before:]
            mine = (c for _, c in told if not str(c.get("id")).startswith("lab-"))
            return any(c.get("execute") == fault.when.value for c in mine) or not operation.running

        if fault.when in (When.ADD, When.DEL):
            deadline = time.monotonic() + _MOMENT
            # the end of a process is not in the record, so it is looked for now and then
            while not self._world.record.wait(there, 0.1) and time.monotonic() < deadline:
                pass
            operation.wait(fault.delay)
        else:
            operation.wait(operation.began + fault.delay - time.monotonic())
        return operation.running

    def _end(self, command: Command) -> None:
        """Wait for its end, which must come in time; judge how it ended."""
        if not command.wait(command.began + command.timeout + GRACE - time.monotonic()):
            self.found.append(f"{said(command.words)} is stuck after {time.monotonic() - command.began:.0f} s")
            command.kill()
        self.found += judge.ending(command.words, command.ended(), killed=command.killed)

    def _truth(self, operation: Command) -> None:
        meddled = _MEDDLING & self._names
        ended = operation.ended()
        if ended.status == 0 and not meddled and self._world.home.alive:
            self.found += judge.truth(operation.words, ended, self._world.see())

    @staticmethod
    def _outcome(command: Command) -> str:
        ended = command.ended()
        if ended.status < 0:
            return "killed"
        document = judge.document_of(ended) or {"error": None}
        return str(document.get("outcome", "error" if "error" in document else "shown"))


def processes_of(word: str) -> list[int]:
    """The processes that have this word on their command line: vcpuctl's (QEMU has its monitor by number)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has just ended
            if word.encode() in line.split(b"\0"):
                found.append(int(entry.name))
    return found
