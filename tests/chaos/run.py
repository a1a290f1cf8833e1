# SPDX-License-Identifier: Apache-2.0
"""One run: turn after turn, each an operation with its faults, the ``scale`` that must succeed, and the judgement."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from e2e import races
from e2e.conftest import Ended
from lab import LabError, VmDiedError, WaitTimeoutError

from chaos import judge
from chaos.choice import Fault, Turn, When, cost, turn
from chaos.command import Command
from chaos.faults import Faults
from chaos.judge import said
from chaos.world import NotMendedError, World, names

#: The bound for the ``scale`` after the faults: its own, and what may come on top for its process (seconds).
SETTLE, GRACE = 120, 30.0
#: Operations between two looks at the agent's size.
SIZES_EVERY = 25
#: Seconds that a fault waits for the device_add or device_del that it is to follow.
_MOMENT = 15.0
#: Faults after which it is not the product's doing, or not only, what the VM looks like.
_MEDDLING = {"raw-add", "raw-del", "guest-offline", "guest-online", "second-vcpuctl", "move", "reboot", "reset"}


@dataclass
class Report:
    """What came out, as it stands in build/chaos.json."""

    operations: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)
    environment: list[dict[str, Any]] = field(default_factory=list)
    restores: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)


class Run:
    """``world`` is restored when its budget, or what was found, asks for it; ``keep`` takes what violations leave."""

    def __init__(
        self, world: World, seed: int, keep: Path, folders: Sequence[Path], say: Callable[[str], None]
    ) -> None:
        """``folders``: the host's runtime directory, and the temporary one of every process of vcpuctl."""
        self.report = Report()
        self.world = world
        self._seed = seed
        self._keep = keep
        self._runtime, self._temporary = folders
        self._before = names(self._runtime)
        self._qemus: set[int] = set()
        self._say = say
        self._recent: list[str] = []

    def turns(self, count: int) -> None:
        """Do so many."""
        for number in range(1, count + 1):
            chosen = turn(self._seed, number, self.world.shape)
            if self.world.lives.vm.plugs_left < cost(chosen, self.world.shape):
                self._restore()
            self._recent = [*self._recent[-9:], f"{number}: {chosen}"]
            began = time.monotonic()
            with _Turn(self.world, chosen, self.report) as done:
                problem = self._do(done)
            self.report.operations += 1
            if number == 1 or number % SIZES_EVERY == 0:
                self._size()
            left = "" if problem else f", {self.world.lives.vm.plugs_left} plugs left"
            verdict = problem or f"scale {chosen.goal}: done"
            self._say(f"{number}/{count} {chosen}: {done.summary}; {verdict} ({time.monotonic() - began:.1f} s{left})")
        self.report.violations += [{"turn": count, "what": what} for what in judge.level(self.report.sizes)]

    def _do(self, done: _Turn) -> str:
        """One turn; what was wrong with it, if anything."""
        try:
            done.operate()
            done.settle()
            found = [*done.found, *self._left_behind()]
        except VmDiedError as error:
            known = [word for word in races.WORDS if any(word in line for line in self.world.vm.record.messages)]
            if known:
                return self._own_trouble(done, f"QEMU died of {known[0]}")
            found = [*done.found, f"QEMU died: {error}"]
        except OwnTroubleError as error:
            found = done.found
            if not found:
                return self._own_trouble(done, str(error))
        except NotMendedError as error:
            found = [*done.found, str(error)]
        except LabError as error:
            found = [*done.found, f"the lab's hands failed: {type(error).__name__}: {error}"]
        if not found:
            return ""
        if half := self.world.half_removed():
            return self._own_trouble(done, f"QEMU does not end the removal of {', '.join(half)}")
        self._violated(done, found)
        self._restore()
        return f"VIOLATED: {' | '.join(found)}"

    def _own_trouble(self, done: _Turn, what: str) -> str:
        """What is not the product's doing: counted, and the run goes on with a new life."""
        self.report.environment.append(
            {"turn": done.turn.number, "what": what, "led_by": list(self._recent), "found": done.found}
        )
        self._restore()
        return f"{what}: the environment's own, restored"

    def _violated(self, done: _Turn, found: list[str]) -> None:
        kept = self._keep / f"{self._seed}-{done.turn.number}"
        self.world.vm.collect(kept)
        for what in found:
            self.report.violations.append(
                {
                    "turn": done.turn.number,
                    "what": what,
                    "led_by": list(self._recent),
                    "said": done.said(),
                    "kept": kept.name,
                }
            )

    def _left_behind(self) -> list[str]:
        self._qemus.add(self.world.vm.pid)
        found = judge.leftovers(self._before, names(self._runtime), self._qemus)
        self._before |= set(found)
        left = names(self._temporary)
        for name in left:
            path = self._temporary / name
            path.rename(self._temporary.with_name(f"kept-{name}"))
        return [f"left in the runtime directory: {found}"] * bool(found) + [f"left behind: {sorted(left)}"] * bool(left)

    def _size(self) -> None:
        try:
            self.report.sizes.append(self.world.agent_size())
        except LabError as error:
            self.report.violations.append({"turn": self.report.operations, "what": f"vcpud's size: {error}"})

    def _restore(self) -> None:
        self.world.restore()
        self.report.restores += 1


class OwnTroubleError(Exception):
    """The guest, asked by the lab's own hands, does the same: it is its own trouble, and named."""


class _Turn:
    """One turn under way."""

    def __init__(self, world: World, chosen: Turn, report: Report) -> None:
        self.turn = chosen
        self.found: list[str] = []
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
        before = len(self._world.commands())
        for fault in self.turn.faults:
            if fault.when is When.BEFORE:
                self._fault(fault)
        operation = self._start(self.turn.words, self.turn.timeout)
        self._faults.operation = operation
        late = []
        for fault in self.turn.faults:
            if fault.when is not When.BEFORE:
                late.append(not self._await(fault, operation, before))
                self._fault(fault)
        self._end(operation)
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
        self._world.mend()
        self._scale()
        ended = self._run(("list",), 30)
        seen = self._world.see()
        document = judge.document_of(ended) if ended is not None else None
        if document is not None and "slots" in document:
            self.found += judge.listed(document, seen)
        else:
            self.found.append(f"list: {ended}")
        if self.turn.repeat and not self.found:
            before = len(self._world.commands())
            self._scale()
            told = [command for _, command in self._world.commands()[before:]]
            self.found += judge.told([("scale said twice",)], told)
        self.found += [f"promise 2: {violation}" for violation in self._world.guest_first()]
        self.found += [f"a vcpuctl is left: pid {pid}" for pid in processes_of(self._world.vm.qmp_socket)]

    def _scale(self) -> None:
        words = ("scale", str(self.turn.goal))
        ended = self._run(words, SETTLE)
        if ended is None:
            return
        if ended.status != 0:
            slots = (judge.document_of(ended) or {}).get("slots", [])
            refused = [slot["slot"] for slot in slots if slot["outcome"] == "refused"]
            if self._world.reserved and refused and (refusal := self._world.guest_says_no(refused)):
                raise OwnTroubleError(f"deadline reservations miscounted: {refusal}")
            self.found.append(f"{said(words)} after all faults were over: status {ended.status}: {ended.stdout}")
        else:
            self.found += judge.truth(words, ended, self._world.see())

    def _run(self, words: tuple[str, ...], timeout: int) -> Ended | None:
        command = self._start(words, timeout)
        self._end(command)
        return None if command.killed else command.ended()

    def _start(self, words: tuple[str, ...], timeout: int) -> Command:
        command = Command(self._world.vm.qmp_socket, words, timeout)
        self._done.append(command)
        self._stack.callback(command.close)
        return command

    def _fault(self, fault: Fault) -> None:
        self._report.faults[fault.name] += 1
        try:
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
            while not self._world.vm.record.wait(there, 0.1) and time.monotonic() < deadline:
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
        meddled = _MEDDLING & {fault.name for fault in self.turn.faults}
        ended = operation.ended()
        if ended.status == 0 and not meddled and self._world.vm.alive:
            self.found += judge.truth(operation.words, ended, self._world.see())

    @staticmethod
    def _outcome(command: Command) -> str:
        ended = command.ended()
        if ended.status < 0:
            return "killed"
        document = judge.document_of(ended) or {"error": None}
        return str(document.get("outcome", "error" if "error" in document else "shown"))


def processes_of(socket: Path) -> list[int]:
    """The processes that name this monitor on their command line: vcpuctl's, since QEMU has it by number."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has just ended
            if str(socket).encode() in line.split(b"\0"):
                found.append(int(entry.name))
    return found
