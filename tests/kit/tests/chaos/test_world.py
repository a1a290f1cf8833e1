# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kit.chaos.choice import Fault, Shape, Turn, When
from kit.chaos.home import QmpHome
from kit.chaos.report import Report
from kit.chaos.under_way import UnderWay
from kit.chaos.world import World
from kit.e2e.guestfirst import Violation
from kit.e2e.platforms import by_two_threads
from kit.lab import GuestCpu, LabError, Lives, QmpError, Vm, WaitTimeoutError

HOME = "/machine/peripheral/vcpu-2"
SLOTS: list[dict[str, Any]] = [{}, {"qom-path": HOME}, {}, {"qom-path": "/machine/unattached/device[0]"}]


class StubVm:
    """A VM of four cores, the third of which was plugged; its guest shows what the test says."""

    def __init__(self, guest: dict[str, GuestCpu] | LabError) -> None:
        self.qmp_socket, self.dir = Path("qmp"), Path("dir")
        self.guest = guest
        self.record = SimpleNamespace(messages=[])
        self.qmp = SimpleNamespace(execute=self._execute)

    def _execute(self, command: str) -> object:
        return {"query-hotpluggable-cpus": SLOTS}[command]

    def guest_cpus(self, *_bounds: float) -> dict[str, GuestCpu]:
        if isinstance(self.guest, LabError):
            raise self.guest
        return self.guest


def home(vm: StubVm) -> QmpHome:
    return QmpHome(cast("Lives", SimpleNamespace(vm=vm)), Shape(2, 4), by_two_threads, traced=False)


def world(vm: StubVm) -> World:
    return World(home(vm))


def core(*online: bool) -> dict[str, GuestCpu]:
    """The guest's CPUs of the third core."""
    return {f"cpu{4 + i}": GuestCpu(online=up, path=str(4 + i), apicid=None) for i, up in enumerate(online)}


@pytest.mark.parametrize(
    ("guest", "violations", "held"),
    [
        (core(False, False), 0, {"seen": 1}),
        (core(False, True), 1, {"seen": 1}),
        (WaitTimeoutError("paused"), 0, {"not seen": 1}),
    ],
    ids=["offline", "half online", "silent"],
)
def test_a_device_del_is_held_against_the_guest_s_own_sysfs(
    guest: dict[str, GuestCpu] | LabError, violations: int, held: dict[str, int]
) -> None:
    vm = StubVm(guest)
    here = world(vm)
    for command in ({"execute": "device_add"}, {"execute": "device_del", "arguments": {"id": "vcpu-2"}}):
        here._look_first(cast("Vm", vm), command)
    assert dict(here.held) == held
    found = here.guest_first()
    assert len(found) == violations
    assert all("[5]" in str(violation) for violation in found)
    assert here.guest_first() == [], "each is told once"


def test_a_device_of_another_kind_that_somebody_else_has_taken_away_is_told() -> None:
    vm = StubVm({})
    here = home(vm)
    here.taken |= {"vcpu-1", "vcpu-3"}
    deleted = []

    def execute(_command: str, **arguments: str) -> None:
        if arguments["id"] == "vcpu-3":
            raise QmpError("DeviceNotFound", "Device 'vcpu-3' not found")
        deleted.append(arguments["id"])

    vm.qmp.execute = execute
    here.release()
    (found,) = World(here).guest_first()
    assert "vcpu-3" in str(found)
    assert (deleted, here.taken) == (["vcpu-1"], set())


@pytest.mark.parametrize(
    ("fault", "lasted", "said", "slipped"),
    [
        ("onliner", 0.2, "ejected-online", True),
        ("guest-online", 0.2, "ejected-online", True),
        ("onliner", 0.01, "", True),
        ("onliner", 0.2, "", False),
        ("onliner", 1.5, "ejected-online", False),
        ("pause", 0.01, "ejected-online", False),
    ],
    ids=["onliner", "once", "being started", "not told", "long before", "nobody's doing"],
)
def test_only_what_slips_through_the_last_moment_and_is_told_is_no_violation(
    fault: str, lasted: float, said: str, *, slipped: bool
) -> None:
    faults = (Fault(fault, When.BEFORE, 0.0, 1.0, 2),)
    turn = Turn(1, ("unplug", "--slot", "2"), 30, faults, 2, repeat=False)
    done = UnderWay(world(StubVm({})), turn, Report())
    ended = SimpleNamespace(status=0, stdout=said, stderr="")
    done._done.append(cast("Any", SimpleNamespace(words=turn.words, running=False, ended=lambda: ended)))
    assert done._slipped(Violation(10.0, "vcpu-2", 2, 10.0 - lasted)) is slipped
