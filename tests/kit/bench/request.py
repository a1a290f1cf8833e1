# SPDX-License-Identifier: Apache-2.0
"""A request that changes nothing: what Python, gRPC and the link take in the guest, whatever is done beyond it.

The boot CPU, which is online, is asked to be so; the session is made before. What an operation costs over the floor
cannot be less than this, since it takes one such request at the least.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from kit.bench import ours
from kit.bench.real import COLD, Say
from kit.lab import Lab, Vm

#: How many are made one after another in a VM; the later half counts as warm.
_IN_TURN = 16
_BOOT_CPU = r"acpi:\_SB_.CPUS.C000"


def measure(lab: Lab, rounds: int, say: Say) -> dict[str, Any]:
    """Medians in milliseconds: of the first in a VM that was just restored, and of later ones."""
    samples = []
    for _ in range(rounds):
        with lab.vm(COLD) as vm:
            samples.append(asyncio.run(_in_turn(vm)))
    say("a request that changes nothing")
    first = [sample[0] for sample in samples]
    later = [seconds for sample in samples for seconds in sample[_IN_TURN // 2 :]]
    return {
        "request_first_ms": round(statistics.median(first) * 1e3, 1),
        "request_ms": round(statistics.median(later) * 1e3, 1),
    }


async def _in_turn(vm: Vm) -> list[float]:
    async with ours.coordinator(str(vm.qmp_socket)) as coordinator:
        agent = await coordinator.session()
        taken = []
        for _ in range(_IN_TURN):
            began = time.monotonic()
            request = agent.set_online((_BOOT_CPU,), online=True, wait=False, brief=True, timeout=60.0)
            said = [answer async for answer in request]
            taken.append(time.monotonic() - began)
            if len(said) != 1:
                raise ours.NotDoneError(f"{len(said)} answers about the boot CPU instead of one")
    return taken
