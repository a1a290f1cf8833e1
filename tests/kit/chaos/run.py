# SPDX-License-Identifier: Apache-2.0
"""One run: turn after turn, each an operation with its faults, the ``scale`` that must succeed, and the judgement."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kit.chaos import judge
from kit.chaos.choice import Turn, cost, turn
from kit.chaos.home import NotMendedError
from kit.chaos.report import Report
from kit.chaos.under_way import UnderWay
from kit.chaos.world import OwnTroubleError, World, names
from kit.e2e import races
from kit.lab import LabError, VmDiedError


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
        self._say = say
        self._recent: list[str] = []

    def turns(self, first: int, last: int, after: Callable[[], None]) -> None:
        """Do those of these numbers; ``after`` is called after each, so that what was seen is not lost with the run."""
        for number in range(first, last + 1):
            chosen = turn(self._seed, number, self.world.shape)
            if self.world.home.plugs_left < cost(chosen, self.world.shape):
                self._restore()
            self._recent = [*self._recent[-9:], f"{number}: {chosen}"]
            began = time.monotonic()
            with UnderWay(self.world, chosen, self.report) as done:
                problem = self._do(done)
            self.report.operations += 1
            if number == last:
                self._level()
            after()
            left = "" if problem else f", {self.world.home.plugs_left} plugs left"
            verdict = problem or f"scale {chosen.goal}: done"
            self._say(f"{number}/{last} {chosen}: {done.summary}; {verdict} ({time.monotonic() - began:.1f} s{left})")

    def _do(self, done: UnderWay) -> str:
        """One turn; what was wrong with it, if anything, with the VM restored after that."""
        trouble = ""
        try:
            done.operate()
            done.settle()
            done.found += self._left_behind(done.turn)
        except VmDiedError as error:
            known = [word for word in races.WORDS if any(word in line for line in self.world.record.messages)]
            if known:
                trouble = f"QEMU died of {known[0]}"
            else:
                done.found.append(f"QEMU died: {error}")
        except OwnTroubleError as error:
            trouble = str(error)
        except NotMendedError as error:
            done.doubtful.append(str(error))
        except LabError as error:
            done.doubtful.append(f"the lab's hands failed: {type(error).__name__}: {error}")
        if done.doubtful and not trouble and (half := self.world.half_removed()):
            trouble = f"QEMU does not end the removal of {', '.join(half)}"
        elif done.doubtful and not trouble:
            trouble = self.world.interrupt_lost() or self.world.deaf()
        found = done.found if trouble else [*done.found, *done.doubtful]
        if not trouble and not found:
            return ""
        # before the VM that it is about is gone
        if found:
            self._violated(done, found)
        if trouble:
            self._own_trouble(done, trouble)
        self._restore()
        return " | ".join([*(f"VIOLATED: {what}" for what in found), *([f"{trouble}: its own"] if trouble else [])])

    def _own_trouble(self, done: UnderWay, what: str) -> None:
        """What is not the product's doing: counted, with what came of it, and the run goes on with a new life."""
        self.report.environment.append(
            {"turn": done.turn.number, "what": what, "led_by": list(self._recent), "found": done.doubtful}
        )

    def _violated(self, done: UnderWay, found: list[str]) -> None:
        kept = self._keep / str(done.turn.number)
        self.world.vm.collect(kept)
        for what in found:
            self.report.violations.append(
                {
                    "turn": done.turn.number,
                    "what": what,
                    "led_by": list(self._recent),
                    "said": done.said(),
                    "kept": str(kept.relative_to(self._keep.parent)),
                }
            )

    def _level(self) -> None:
        """vcpud does not grow: not one process of it, and not from the first to the last."""
        looks = [*self.report.by_process(), self.report.agents]
        for samples in looks:
            for what in judge.level([(look.rss_kb, look.descriptors) for look in samples]):
                self.report.violations.append({"turn": samples[-1].turn, "what": what})

    def _left_behind(self, turn: Turn) -> list[str]:
        killed = any(fault.name == "kill-vcpuctl" for fault in turn.faults)
        found = judge.leftovers(self._before, names(self._runtime), killed=killed)
        self._before |= set(found)
        left = names(self._temporary)
        for name in left:
            path = self._temporary / name
            path.rename(self._temporary.with_name(f"kept-{name}"))
        return [f"left in the runtime directory: {found}"] * bool(found) + [f"left behind: {sorted(left)}"] * bool(left)

    def _restore(self) -> None:
        self.world.restore()
        self.report.restores += 1
