# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from chaos.choice import Shape
from chaos.world import World
from e2e.platforms import by_two_threads
from lab import GuestCpu, LabError, Lives, Vm, WaitTimeoutError

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


def world(vm: StubVm, lives: object = None) -> World:
    return World(cast("Lives", lives or SimpleNamespace(vm=vm)), Shape(2, 4), by_two_threads, traced=False)


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
    assert all("[5]" in violation for violation in found)
    assert here.guest_first() == [], "each is told once"
