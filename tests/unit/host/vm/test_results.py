# SPDX-License-Identifier: Apache-2.0
"""What a result says of the VM's vCPUs before and after the operation, and of its phases."""

from __future__ import annotations

import asyncio

from kit.clock import Clock
from kit.fakes.adapters import BRISK, Rig, until
from vcpu_host.core.operation.counts import Counts
from vcpu_host.core.operation.result import PHASES
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.reason import Outcome


async def test_a_result_counts_the_vcpus_before_and_as_the_operation_saw_them_last(rig: Rig) -> None:
    for request, before, after in (
        (Request(Operation.PLUG, 2), (1, 1), (3, 3)),
        (Request(Operation.OFFLINE, selectors=("2",)), (3, 3), (3, 2)),
        (Request(Operation.SCALE, 3), (3, 2), (3, 3)),
        (Request(Operation.UNPLUG, 1), (3, 3), (2, 2)),
        (Request(Operation.PLUG, 99), (2, 2), (2, 2)),
    ):
        result = await rig.whole.run(request, BRISK)
        assert (result.before, result.after) == (Counts(*before), Counts(*after)), request


async def test_a_slot_goes_through_the_phases_of_the_table_and_no_others(rig: Rig) -> None:
    results = [await rig.whole.run(Request(operation, 1), BRISK) for operation in (Operation.PLUG, Operation.UNPLUG)]
    assert {phase for result in results for slot in result.slots for phase in slot.phases} == set(PHASES)


async def test_a_count_that_nobody_can_tell_is_not_guessed(rig: Rig) -> None:
    without = await rig.whole.run(Request(Operation.PLUG, 1, without_agent=True), BRISK)
    assert (without.before, without.after) == (Counts(1, None), Counts(2, None))
    rig.vm.guest_works = False
    waiting = await Clock().ends(
        rig.whole.run(Request(Operation.UNPLUG, selectors=("1",)), BRISK), lambda: "del vcpu-1" in rig.vm.commands
    )
    assert waiting.outcome is Outcome.UNKNOWN
    assert waiting.after == Counts(2, 1), "the CPU is offline, and QEMU has it still"


async def test_when_qemu_has_gone_nobody_says_how_many_there_are(rig: Rig) -> None:
    rig.vm.guest_works = False
    loop = asyncio.get_running_loop()
    operation = loop.create_task(rig.whole.run(Request(Operation.PLUG, 1), BRISK._replace(timeout=30.0)))
    await until(lambda: rig.vm.commands == ["add 1 vcpu-1"])
    rig.vmm.die()
    result = await operation
    assert (result.before, result.after) == (Counts(1, 1), None)
