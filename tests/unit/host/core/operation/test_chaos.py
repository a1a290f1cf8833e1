# SPDX-License-Identifier: Apache-2.0
"""A hundred thousand operations in simulated time, any of which may go wrong in any way; and that this finds bugs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

import kit.sim.world
import pytest
import vcpu_host.core.view
from kit.sim.chaos import Chaos
from vcpu_host.core.guest import GuestView
from vcpu_host.core.model import HostView
from vcpu_host.core.operation import guest_transitions, record, transitions, verdicts
from vcpu_host.core.operation.machine import Machine
from vcpu_host.core.operation.slot_job import Goal, Job
from vcpu_host.core.operation.state import State
from vcpu_host.core.platforms import Platform
from vcpu_host.core.proof import SeenDown
from vcpu_host.core.reason import Outcome, Reason
from vcpu_host.core.view import VmView, join

Patch = pytest.MonkeyPatch

#: Enough that each of the bugs below is found. More of them only cost time: `make test` is to end in 40 minutes.
SEEDS = range(30)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_goes_wrong_one_scale_makes_it_right_and_the_promises_hold(seed: int) -> None:
    chaos = Chaos(seed)
    chaos.run(3000)
    assert chaos.operations >= 3000
    assert {"done", "unknown", "failed", "refused", "partial", "crashed"} <= set(chaos.done)


# --- bugs planted on purpose: the machine above must find each ------------------------------------------------------


def no_offline_check(patch: Patch) -> None:
    patch.setattr(Job, "guest_down", lambda self, session: session is not None)


def count_instead_of_identity(patch: Patch) -> None:
    """As many CPUs as the guest has online are taken for the first ones that it should have."""

    def counted(host: HostView, guest: GuestView | None, **more: object) -> VmView:
        view = join(host, guest, **more)  # type: ignore[arg-type]
        if guest is None:
            return view
        names = [name for slot in view.slots if slot.slot.filled for name in slot.firmware_ids]
        cpus = sorted(guest.cpus, key=lambda cpu: not cpu.online)
        renamed = tuple(replace(cpu, firmware_id=name) for cpu, name in zip(cpus, names, strict=False))
        return join(host, guest._replace(cpus=renamed), **more)  # type: ignore[arg-type]

    patch.setattr(kit.sim.world, "join", counted)


def timeout_is_a_failure(patch: Patch) -> None:
    settle = State.settle

    def settled(self: State, job: Job, outcome: Outcome, reason: Reason | None = None) -> None:
        late = outcome is Outcome.UNKNOWN and self.now >= self.deadline
        settle(self, job, Outcome.FAILED if late else outcome, reason)

    patch.setattr(State, "settle", settled)


def pending_record_forgotten(patch: Patch) -> None:
    patch.setattr(record, "settle", lambda intents, view: ())


def agents_word_is_enough(patch: Patch) -> None:
    settle = Machine._settle

    def settled(self: Machine, job: Job) -> None:
        if job.open and job.goal is Goal.UP and job.guest_up:
            verdicts.reach(self._state, job)
        settle(self, job)

    patch.setattr(Machine, "_settle", settled)


def absence_is_proof(patch: Patch) -> None:
    """F1: what the guest does not show is not there, whatever else it shows."""
    patch.setattr(vcpu_host.core.view, "unexplained", lambda cpus, identities: ())
    patch.setattr(guest_transitions, "unexplained", lambda cpus, identities: ())


def confirmation_never_ages(patch: Patch) -> None:
    """F2: what was offline once stays so."""
    patch.setattr(SeenDown, "holds_until", lambda self, limit: inf)


def guest_hears_of_every_cpu(patch: Patch) -> None:
    """F5: what QEMU has the guest will come to know by itself."""
    patch.setattr(Platform, "dies_of_replug", lambda self, host: True)


def evidence_outlives_the_cpu(patch: Patch) -> None:
    """F5: what the guest said of a CPU holds for the one that was plugged in its place."""

    def is_out(self: Job, now: float) -> None:
        del now
        self.roll_back(Goal.UP, self.outcome_if_reached, self.reason)
        self.anew, self.replugged = False, True
        self.plug.taken_out()
        self.absent_at = None

    patch.setattr(Job, "is_out", is_out)


def emptied_is_as_before(patch: Patch) -> None:
    """F5: a CPU that was taken out, and did not get in again, is told as refused or undone."""
    patch.setattr(Job, "emptied", False)


def every_stop_is_a_pause(patch: Patch) -> None:
    """F6: a VM that stands still has been paused, and goes on some time."""
    patch.setattr(transitions, "is_over", lambda status: False)


def deaf_for_good(patch: Patch) -> None:
    """F14: an agent that has lost events hears no more."""
    patch.setattr(kit.sim.world.World, "_hears_again", lambda self, sim: self._agent_goes_deaf())
    patch.setattr(
        kit.sim.world.World, "_agent_goes_deaf", lambda self: setattr(self, "_hears", _nothing), raising=False
    )


def _nothing(sim: object) -> None:
    del sim


def silence_is_a_verdict(patch: Patch) -> None:
    """F12: a guest that has not told of a CPU in time has none."""
    await_arrival = Machine._await_arrival

    def awaited(self: Machine, job: Job) -> None:
        silent = not any(thread.present for thread in job.threads)
        if silent and job.plug.acknowledged_at is not None and self._state.session is not None:
            job.listed_absent(self._state.now)
        await_arrival(self, job)

    patch.setattr(Machine, "_await_arrival", awaited)


def whatever_is_open_had_not_begun(patch: Patch) -> None:
    patch.setattr(Job, "begun", False)


@pytest.mark.parametrize(
    "plant",
    [
        no_offline_check,
        count_instead_of_identity,
        timeout_is_a_failure,
        pending_record_forgotten,
        agents_word_is_enough,
        absence_is_proof,
        confirmation_never_ages,
        guest_hears_of_every_cpu,
        evidence_outlives_the_cpu,
        emptied_is_as_before,
        every_stop_is_a_pause,
        silence_is_a_verdict,
        deaf_for_good,
        whatever_is_open_had_not_begun,
    ],
)
def test_a_planted_bug_is_found(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=r"seed \d+, operation \d+: "):
        look_for_it()


def look_for_it() -> None:
    """As long as the test above looks."""
    for seed in SEEDS:
        Chaos(seed).run(3000)
