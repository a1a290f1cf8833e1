# SPDX-License-Identifier: Apache-2.0
"""Chaos in simulated time: one VM lives through operation after operation, any of which may go wrong in any way.

After each, the faults stop and one ``scale`` must make it right, whatever was left under way; the world's own truth
judges. Everything follows from the seed. The same on real machines is ``tests/kit/chaos``.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Outcome

from .ground import Faults
from .trial import Line, Trial
from .world import HAPPENINGS, World

_CHANCES = ("lost", "doubled", "late", "add_refused", "del_refused", "online_refused", "offline_refused", "passing",
    "eject_refused", "eject_silent", "ignored", "auto_online", "stream_breaks", "lies", "slow", "deaf",
    "slow_record")  # fmt: skip
_WHEN = (0.0, 0.005, 0.02, 0.3, 1.0, 2.5, 9.0)
#: What happens by others' hands may still land when the faults have stopped.
_OTHERS = frozenset(name for name in HAPPENINGS if name.startswith("they"))
#: So many operations on one VM; then another one, with other slots.
_LIFE = 150


@dataclass
class Chaos:
    """Operations on simulated VMs, one after another. AssertionError, with what led to it: a promise is broken."""

    seed: int
    #: Commands carried out, the ones that mend included.
    operations: int = 0
    done: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._world = self._new_world()

    def run(self, operations: int) -> None:
        """At least so many operations; of three, one may go wrong, one mends it, and one finds nothing to do."""
        born = 0
        while self.operations < operations:
            if self._world.dead or self.operations - born > _LIFE:
                self._world, born = self._new_world(), self.operations
            story: list[Line] = []
            try:
                self._one(story)
            except AssertionError as error:
                lines = "\n".join(map(str, story))
                raise AssertionError(f"seed {self.seed}, operation {self.operations}: {error}\n{lines}") from error

    def _new_world(self) -> World:
        rng = self._rng
        total, threads = rng.randint(2, 6), rng.choice((1, 1, 2))
        online = {0, *(index for index in range(total) if rng.random() < 0.5)}
        return World(total, online, (), threads, seed=rng.getrandbits(32))

    def _one(self, story: list[Line]) -> None:
        rng, world = self._rng, self._world
        faults = self._draw_faults()
        world.unleash(faults)
        if rng.random() < 0.15:
            self._revert(rng.randrange(world.total))
        timeout, lives = rng.choice((0.5, 5.0, 60.0)), rng.choice((None, None, rng.randint(0, 40)))
        trial = Trial(world, self._worthwhile(), Limits(timeout=timeout), lives=lives, story=story)
        story.append(Line(world.now, (trial.request, timeout, faults)))
        self.operations += 1
        result = trial.run()
        self.done["crashed" if trial.crashed else str(result.outcome) if result else "nothing to do"] += 1
        if world.dead:
            return
        others = any(what in _OTHERS for _, what, _ in faults.happenings)
        # A kernel that has ignored a CPU does so for good, unless something makes it look again.
        if others or faults.ignored or rng.random() < 0.3:
            world.calm()
        else:
            world.stop_faults()
        self._converges(story)

    def _revert(self, first: int) -> None:
        """A snapshot is loaded while nobody is at work: for the operation that follows, that is how things stand."""
        self._world.happen("reverted", first)
        self._world.hang_up()
        for sim in self._world.sims:
            sim.touched = False
        self.faults["reverted before"] += 1

    def _converges(self, story: list[Line]) -> None:
        world = self._world
        goal = self._rng.randint(1, world.total)
        story.append(Line(world.now, ("the faults stop; scale to", goal, "slots; on record", world.record)))
        request = Request(Operation.SCALE, goal * world.threads)
        trial = Trial(world, request, Limits(timeout=200.0), story=story)
        self.operations += 2
        result = trial.run()
        assert not trial.plan.refusals, trial.plan.refusals
        assert result is None or result.outcome is Outcome.DONE, f"one scale did not do: {result}"
        world.drain()
        up = [sim.index for sim in world.sims if sim.up]
        filled = [sim.index for sim in world.sims if sim.holder is not None]
        assert len(up) == goal, f"{up} are up in the end, and not {goal}"
        assert up == filled, f"{filled} are filled, and {up} are up"
        again = Trial(world, request, story=story)
        assert again.run() is None, "a goal that is reached is not left alone"
        assert not again.plan.steps, again.plan
        assert world.record == (), f"all is settled, and yet on record: {world.record}"
        for sim in world.sims:
            sim.touched = sim.lied_about = False

    def _draw_faults(self) -> Faults:
        rng = self._rng
        chances = {name: rng.choice((0.3, 1.0)) for name in _CHANCES if rng.random() < 0.15}
        happenings = tuple(
            (rng.choice(_WHEN), what, rng.randrange(6))
            for what in rng.choices(sorted(HAPPENINGS), k=rng.choice((0, 0, 1, 2)))
            if what != "qemu dies" or rng.random() < 0.2
        )
        onliner = rng.choice((0.05, 0.2, 1.0)) if rng.random() < 0.1 else 0.0
        self.faults.update(list(chances))
        self.faults["onliner"] += bool(onliner)
        self.faults.update(what for _, what, _ in happenings)
        return Faults(**chances, onliner=onliner, happenings=happenings)

    def _worthwhile(self) -> Request:
        """Mostly one that has something to do; a refusal is quickly told."""
        for _ in range(4):
            request = self._request()
            if plan(self._world.view(), request).steps:
                break
        return request

    def _request(self) -> Request:
        rng, world = self._rng, self._world
        operation = rng.choice(list(Operation))
        amount = operation in (Operation.PLUG, Operation.UNPLUG) and rng.random() < 0.5
        if operation is Operation.SCALE or amount:
            request = Request(operation, rng.randint(1, world.total) * world.threads)
        else:
            slots = rng.sample(range(world.total), rng.randint(1, world.total))
            request = Request(operation, None, tuple(map(str, sorted(slots))))
        return replace(request, atomic=rng.random() < 0.2)
