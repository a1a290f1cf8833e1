# SPDX-License-Identifier: Apache-2.0
"""From a load to its vCPUs, on a real guest: vcpuctl's policy and Neon's rule in the same loop, turn by turn.

The loop is the service's own (``service.autoscaler``), in this process, so that each step of it can be timed. Neon's
rule gets what the guest's kernel would have as load1: the tasks that could run, averaged as the kernel does it
(kernel/sched/loadavg.c), without a wait for the file to be read.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

from kit.bench import report
from kit.bench.real import ROOT, WARM, Say
from kit.bench.report import versions
from kit.lab import Lab, Vm
from vcpu_host.autoscale.budget import Budget
from vcpu_host.autoscale.decision import Check, Decision, Verdict
from vcpu_host.autoscale.outside import Outside
from vcpu_host.autoscale.policy import Policy
from vcpu_host.autoscale.sample import LoadSample
from vcpu_host.autoscale.settings import Mode, Settings
from vcpu_host.autoscale.usage import Meter
from vcpu_host.core import codes
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.documents import Document, of_view
from vcpu_host.local.target import Target
from vcpu_host.service.autoscaler import Autoscaler
from vcpu_host.sharing.calls import Call, Kind, Part
from vcpu_host.sharing.hold import Held, hold

OUTPUT = ROOT / "build" / "autoscale.json"
ROUNDS = 20
#: So many busy processes, on one vCPU.
BUSY = 4
#: A run that has not come to its end after so many seconds is an error.
_LONGEST = 400.0
#: Pauses that only a second round of the same VM would notice are left out.
SETTINGS = Settings(max=BUSY, mode=Mode.ACT, boot_grace=0.0, turn_pause=0.0, operator_hold=0.0)
STEPS = ("decision", "device_add", "online", "throughput")


@dataclass
class Times:
    """When what was there, in seconds from the load's start; None: not yet."""

    began: float
    decision: float | None = None
    device_add: float | None = None
    online: float | None = None
    throughput: float | None = None


@dataclass
class Watch:
    """Hears what the loop decides and how its operations end, and what the guest uses."""

    times: Times | None = None
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def since(self) -> float:
        """Seconds since the load began."""
        assert self.times is not None
        return asyncio.get_running_loop().time() - self.times.began

    def decided(self, name: str, decision: Decision, mode: str) -> None:
        """Nothing: what counts is what is changed."""

    def changed(self, name: str, place: str, entry: Any, mode: str) -> None:
        """The first decision of a run."""
        if self.times is not None and self.times.decision is None:
            self.times.decision = self.since()

    def ended(self, result: Document) -> None:
        """An operation is done: its slots are online in the guest."""
        if self.times is None or result["operation"] != "scale" or self.times.decision is None:
            return
        added = [slot["phases"]["device_add"] for slot in result["slots"] if "device_add" in slot["phases"]]
        if self.times.device_add is None and added:
            self.times.device_add = self.since() - result["elapsed"] + min(added)
        # Done is proven on both sides, by the firmware's names of the CPUs.
        if result["outcome"] == "done" and result["requested"]["count"] == BUSY:
            self.times.online = self.since()
        self.heard.set()

    def uses(self, used: float) -> None:
        """The guest has used so many vCPUs since the last sample."""
        if self.times is not None and self.times.throughput is None and used >= 0.9 * BUSY:
            self.times.throughput = self.since()
            self.heard.set()


class Ours(Policy):
    """The product's policy; what the guest uses is told to the watch."""

    def __init__(self, settings: Settings, watch: Watch) -> None:
        super().__init__(settings)
        self._watch = watch
        self._own_meter = Meter()

    def sample(self, sample: LoadSample, now: float) -> None:
        """See Policy."""
        usage = self._own_meter.take(sample, now)
        if usage is not None:
            self._watch.uses(usage.used)
        super().sample(sample, now)

    def begins(self) -> None:
        """A new run: nothing of the last one counts."""
        self._moves.last = None
        self._moves.free()
        self._window.clear()


class Neon(Ours):
    """Neon's rule: every five seconds as many vCPUs as make load1 at most 0.9 for each."""

    def __init__(self, settings: Settings, watch: Watch) -> None:
        super().__init__(settings, watch)
        self.load1 = 0.0
        self._next = -math.inf

    def begins(self) -> None:
        """A guest that was idle for minutes."""
        super().begins()
        self.load1 = 0.0

    def sample(self, sample: LoadSample, now: float) -> None:
        """Average as the kernel does: every five seconds."""
        super().sample(sample, now)
        if now >= self._next:
            self._next = now + 5.0
            kept = math.exp(-5 / 60)
            self.load1 = self.load1 * kept + (sample.runnable or 0) * (1 - kept)

    def decide(self, outside: Outside, now: float) -> Decision:
        """Go where load1 says, unless something is under way."""
        goal = min(max(math.ceil(self.load1 / 0.9), 1), self.settings.max)
        if self._moves.under_way is not None or goal < outside.online or outside.trouble is not None:
            goal = outside.online
        check = Check(codes.LOAD_NEEDS_MORE, Verdict.PASSES, f"load1 is {self.load1:.2f}")
        return Decision(now, outside.online, goal, 1, self.settings.max, (check,))


RULES: Mapping[str, type[Ours]] = {"vcpuctl": Ours, "neon": Neon}


@asynccontextmanager
async def _looping(held: Held, loop: Autoscaler) -> AsyncIterator[None]:
    """Have the loop run, and follow the VM for it."""

    async def follow() -> None:
        async for view in held.vm.watch(interval=120.0):
            loop.looked(of_view(view))

    tasks = [asyncio.ensure_future(follow()), asyncio.ensure_future(loop.run(held))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def one(vm: Vm, held: Held, rule: str, watch: Watch) -> Times:
    """Return the times of one run: from the start of the load until it has its vCPUs and uses them."""
    policy = RULES[rule](SETTINGS, watch)
    loop = Autoscaler("bench", str(vm.qmp_socket), SETTINGS, Budget(), 1.0, watch, policy=policy)
    async with _looping(held, loop):
        await asyncio.sleep(3)  # some calm samples, as a service that has been there has them
        policy.begins()
        watch.times = Times(asyncio.get_running_loop().time())
        await asyncio.to_thread(
            vm.shell, f"for i in $(seq {BUSY}); do (while :; do :; done) & done; jobs -p >/run/busy"
        )
        async with asyncio.timeout(_LONGEST):
            while watch.times.online is None or watch.times.throughput is None:
                await watch.heard.wait()
                watch.heard.clear()
        times, watch.times = watch.times, None
    await asyncio.to_thread(vm.shell, "kill $(cat /run/busy); wait 2>/dev/null; true")
    await held.answer(Call(Kind.RUN, Request(Operation.SCALE, 1)), lambda message: None)
    return times


async def _measure(vm: Vm, rounds: int, say: Say) -> dict[str, list[dict[str, float | None]]]:
    found: dict[str, list[dict[str, float | None]]] = {rule: [] for rule in RULES}
    watch = Watch()
    async with hold(Target(str(vm.qmp_socket)), Part.KEEPS, "bench", ended=watch.ended) as held:
        for turn in range(rounds):
            for rule in RULES:
                times = await one(vm, held, rule, watch)
                found[rule].append({step: getattr(times, step) for step in STEPS})
                say(f"{rule}: online after {times.online:.2f} s (round {turn + 1} of {rounds})")
    return found


def summary(samples: Mapping[str, Sequence[Mapping[str, float | None]]]) -> dict[str, Any]:
    """Return median and 99th percentile of each step, and how ours compare with Neon's."""

    def at(rule: str, step: str, share: int) -> float | None:
        values = [value for each in samples[rule] if (value := each[step]) is not None]
        return round(quantiles(values, n=100, method="inclusive")[share - 1], 3) if len(values) > 1 else None

    steps = {
        rule: {f"{step}_p{share}_s": at(rule, step, share) for step in STEPS for share in (50, 99)} for rule in samples
    }
    ours, neon = steps["vcpuctl"]["online_p50_s"], steps["neon"]["online_p50_s"]
    return {
        "load_to_online_p50_ratio_neon": None if ours is None or not neon else round(ours / neon, 3),
        "load_to_online_p50_s": ours,
        "load_to_online_p99_s": steps["vcpuctl"]["online_p99_s"],
        "steps": steps,
    }


def write(lab: Lab, rounds: int, say: Say, *, more: bool) -> dict[str, Any]:
    """Measure, and write ``build/autoscale.json``; ``more``: add to the rounds that are there of the same commit."""
    samples: dict[str, list[dict[str, float | None]]] = {rule: [] for rule in RULES}
    with lab.vm(WARM) as vm:
        told = versions(vm)
        if more and OUTPUT.exists():
            before = json.loads(OUTPUT.read_text())
            if before["versions"] == told:
                samples = before["samples"]
        for rule, times in asyncio.run(_measure(vm, rounds, say)).items():
            samples[rule] += times
    found = {"versions": told, "rounds": len(samples["vcpuctl"]), **summary(samples), "samples": samples}
    report.write(OUTPUT, found)
    return found
