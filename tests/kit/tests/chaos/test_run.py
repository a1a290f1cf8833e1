# SPDX-License-Identifier: Apache-2.0
"""What a run makes of a turn: a violation, trouble of the environment's own, or both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kit.chaos import run as chaos_run
from kit.chaos.choice import Shape
from kit.chaos.choice import turn as chosen
from kit.chaos.home import NotMendedError
from kit.chaos.report import Agent, Report
from kit.chaos.run import Run
from kit.chaos.under_way import UnderWay
from kit.chaos.world import OwnTroubleError, World
from kit.lab import VmDiedError, WaitTimeoutError

Script = Callable[[UnderWay], None]


class Scripted(UnderWay):
    """A turn that no VM is needed for: it ends as the test says."""

    script: Script

    def operate(self) -> None:
        self.summary = "status 0"

    def settle(self) -> None:
        type(self).script(self)


class StubWorld:
    """Restored as often as ``restores`` says.

    ``half``, ``lost`` and ``silent`` are what half_removed, interrupt_lost and deaf tell.
    """

    def __init__(self) -> None:
        self.shape = Shape(threads=1, slots=64)
        self.home = SimpleNamespace(plugs_left=1000)
        self.messages: list[str] = []
        self.record = SimpleNamespace(messages=self.messages)
        self.vm = SimpleNamespace(pid=1, collect=lambda _kept: None)
        self.half: list[str] = []
        self.lost = ""
        self.silent = ""
        self.restores = 0

    def half_removed(self) -> list[str]:
        return self.half

    def interrupt_lost(self) -> str:
        return self.lost

    def deaf(self) -> str:
        return self.silent

    def restore(self) -> None:
        self.restores += 1


@pytest.fixture
def world() -> StubWorld:
    return StubWorld()


@pytest.fixture
def outcome(world: StubWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """Runs turns that end as scripted; gives the report."""

    def do(
        script: Script, turns: int = 1, after: Callable[[Report], None] = lambda _report: None, first: int = 1
    ) -> Report:
        monkeypatch.setattr(Scripted, "script", script, raising=False)
        monkeypatch.setattr(chaos_run, "UnderWay", Scripted)
        folders = (tmp_path / "run", tmp_path / "tmp")
        run = Run(cast("World", world), 1, tmp_path / "kept" / "q35-1", folders, lambda _line: None)
        run.turns(first, turns, lambda: after(run.report))
        return run.report

    return do


def what(items: list[dict[str, Any]]) -> list[str]:
    return [item["what"] for item in items]


def test_a_turn_in_which_all_is_well_is_counted_and_nothing_is_restored(
    outcome: Callable[..., Report], world: StubWorld
) -> None:
    report = outcome(lambda turn: None, turns=3)
    assert (report.operations, report.violations, report.environment, world.restores) == (3, [], [], 0)


def test_what_is_found_counts_and_the_vm_is_restored(outcome: Callable[..., Report], world: StubWorld) -> None:
    def script(turn: UnderWay) -> None:
        turn.found.append("told too much")
        turn.doubtful.append("scale did not do")

    report = outcome(script)
    assert what(report.violations) == ["told too much", "scale did not do"]
    assert (report.environment, world.restores) == ([], 1)
    assert report.violations[0]["kept"] == "q35-1/1"


def broken(turn: UnderWay) -> None:
    turn.found.append("told too much")
    turn.doubtful.append("scale did not do")


def by_race(turn: UnderWay, world: StubWorld) -> None:
    world.messages.append("qemu: iotlb_to_section: Assertion `x' failed.")
    raise VmDiedError("it is gone")


def by_reservations(_turn: UnderWay, _world: StubWorld) -> None:
    raise OwnTroubleError("deadline reservations miscounted")


def by_half_a_removal(_turn: UnderWay, world: StubWorld) -> None:
    world.half.append("/machine/peripheral/vcpu-2")
    raise NotMendedError("the console does not answer")


def by_deafness(_turn: UnderWay, world: StubWorld) -> None:
    world.silent = "the guest takes no ACPI interrupt"


def by_an_interrupt(_turn: UnderWay, world: StubWorld) -> None:
    world.lost = "CPU 1 sleeps with interrupt 236 in service"
    raise NotMendedError("the console does not answer")


@pytest.mark.parametrize("trouble", [by_race, by_reservations, by_half_a_removal, by_an_interrupt, by_deafness])
def test_trouble_of_the_environment_hides_what_comes_of_it_and_no_other_violation(
    trouble: Callable[[UnderWay, StubWorld], None], outcome: Callable[..., Report], world: StubWorld
) -> None:
    def script(turn: UnderWay) -> None:
        broken(turn)
        trouble(turn, world)

    report = outcome(script)
    assert what(report.violations) == ["told too much"]
    (event,) = report.environment
    assert "scale did not do" in event["found"]
    assert world.restores == 1


def test_trouble_of_the_environment_alone_is_no_violation(outcome: Callable[..., Report], world: StubWorld) -> None:
    report = outcome(lambda turn: by_half_a_removal(turn, world))
    assert (report.violations, len(report.environment), world.restores) == ([], 1, 1)


@pytest.mark.parametrize(
    "error", [VmDiedError("double free"), WaitTimeoutError("no answer"), NotMendedError("no agent")], ids=repr
)
def test_a_vm_that_is_lost_for_no_known_reason_is_a_violation(
    error: Exception, outcome: Callable[..., Report], world: StubWorld
) -> None:
    def script(_turn: UnderWay) -> None:
        raise error

    report = outcome(script)
    assert [str(error) in said for said in what(report.violations)] == [True]
    assert (report.environment, world.restores) == ([], 1)


def test_an_interrupted_run_goes_on_where_it_was(outcome: Callable[..., Report]) -> None:
    report = outcome(lambda turn: turn.found.append(str(turn.turn)), turns=5, first=4)
    assert [violation["turn"] for violation in report.violations] == [4, 5]
    assert what(report.violations) == [str(chosen(1, number, Shape(threads=1, slots=64))) for number in (4, 5)]


def test_after_each_turn_the_report_is_there_to_be_written(outcome: Callable[..., Report]) -> None:
    seen: list[int] = []
    outcome(lambda turn: None, turns=3, after=lambda report: seen.append(report.operations))
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(("grows", "violations"), [(2000, 1), (0, 0)])
def test_one_process_of_the_agent_that_grows_is_found_among_many(
    grows: int, violations: int, outcome: Callable[..., Report]
) -> None:
    def script(turn: UnderWay) -> None:
        number = turn.turn.number
        process, kb = ((1, 7), 30_000 + number * grows) if number <= 10 else ((number, 8), 30_000)
        turn._report.agents.append(Agent(process, number, kb, 20))

    report = outcome(script, turns=40)
    assert len(report.violations) == violations
    assert all(violation["turn"] == 10 for violation in report.violations)


def test_what_is_left_in_the_runtime_directory_is_told_with_its_name(
    outcome: Callable[..., Report], tmp_path: Path
) -> None:
    def script(_turn: UnderWay) -> None:
        folder = tmp_path / "run"
        folder.mkdir()
        for name in ("1-2-3.lock", "1-2-3.pending", "1-2-3.new", f"rpc-{'a' * 16}.sock"):
            (folder / name).touch()

    (violation,) = outcome(script).violations
    assert violation["what"] == f"left in the runtime directory: ['1-2-3.new', 'rpc-{'a' * 16}.sock']"
