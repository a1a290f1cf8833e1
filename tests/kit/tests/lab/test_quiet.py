# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any, cast

import pytest
from kit.lab import quiet
from kit.lab.errors import LabError
from kit.lab.qmp import Qmp

#: As QEMU 11.1 says it of a pseries VM with ``ic-mode=xics``, the sources left out but for two.
IDLE = """CPU 0 XIRR=ff000000 ((nil)) PP=ff MFRR=ff
CPU 1 XIRR=ff000000 ((nil)) PP=ff MFRR=ff
ICS 1000..1fff 0x55556b625730
  1000 MSI 05 00
  1307 MSI 05 04
irqchip: emulated
"""
IPI = IDLE.replace("CPU 1 XIRR=ff000000 ((nil)) PP=ff MFRR=ff", "CPU 1 XIRR=ff000002 ((nil)) PP=04 MFRR=04")
DEVICE = IDLE.replace("CPU 0 XIRR=ff000000 ((nil))", "CPU 0 XIRR=ff001301 (0x55556e106ed0)")


class Monitor:
    """Says of the interrupts what it is told to, once each, and keeps what else it is asked for."""

    def __init__(self, *pics: str, status: str = "paused") -> None:
        self.pics = list(pics)
        self.status = status
        self.done: list[str] = []

    def execute(self, command: str, **arguments: Any) -> Any:
        if command == "human-monitor-command":
            assert arguments == {"command_line": "info pic"}
            assert self.done[-1] == "stop", "what waits is only known while the VM stands"
            return self.pics.pop(0)
        if command == "query-status":
            return {"status": self.status}
        self.done.append(command)
        return {}


@pytest.mark.parametrize("pic", [IPI, DEVICE])
def test_an_interrupt_that_its_cpu_has_not_taken_waits(pic: str) -> None:
    assert quiet.waiting(pic)
    assert not quiet.waiting(IDLE)


def test_where_no_xics_is_shown_it_is_not_taken_for_one_with_nothing_waiting() -> None:
    with pytest.raises(LabError, match="no XICS"):
        quiet.waiting("XIVE: ...")


def test_the_vm_goes_on_until_it_can_be_stopped_with_nothing_waiting() -> None:
    monitor = Monitor(IPI, DEVICE, IDLE)
    quiet.stop(cast(Qmp, monitor))
    assert monitor.done == ["stop", "cont", "stop", "cont", "stop"]
    assert not monitor.pics


def test_a_vm_that_has_left_does_not_go_on_here() -> None:
    monitor = Monitor(IPI, IDLE, status="postmigrate")
    with pytest.raises(LabError, match="postmigrate"):
        quiet.stop(cast(Qmp, monitor))
    assert monitor.done == ["stop"]


@pytest.mark.parametrize(
    ("machine", "accel", "loses"),
    [
        ("pseries,x-vof=on,ic-mode=xics", "tcg", True),
        ("pseries,ic-mode=xics", "kvm", False),
        ("pseries,x-vof=on", "tcg", False),
        ("q35", "tcg", False),
    ],
)
def test_only_an_emulated_xics_loses_interrupts(machine: str, accel: str, loses: bool) -> None:
    assert quiet.loses_interrupts(machine, accel) is loses
