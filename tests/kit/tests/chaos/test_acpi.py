# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from kit.chaos import acpi
from kit.lab import Vm

EMPTY = {"type": "qemu64-x86_64-cpu", "props": {"core-id": 1}}
FILLED = {**EMPTY, "qom-path": "/machine/unattached/device[0]"}


class StubVm:
    """Its guest counts one interrupt more for each plug, if it ``hears``."""

    def __init__(self, slots: list[dict[str, Any]], *, hears: bool, has: bool = True) -> None:
        self.qmp = SimpleNamespace(execute=self._execute)
        self.plugged: list[dict[str, Any]] = []
        self._slots, self._hears, self._has = slots, hears, has

    def _execute(self, command: str, **arguments: Any) -> object:
        if command == "device_add":
            self.plugged.append(arguments)
        return self._slots

    def shell(self, _command: str, _timeout: float) -> str:
        heard = len(self.plugged) if self._hears else 0
        return f"     {7 + heard}\n" if self._has else "none\n"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acpi, "_WITHIN", 0.01)


def test_a_guest_whose_interrupt_does_not_come_is_deaf_and_the_count_is_told() -> None:
    vm = StubVm([EMPTY, FILLED], hears=False)
    assert "7 had come" in acpi.deaf(cast("Vm", vm))
    assert vm.plugged == [{"driver": "qemu64-x86_64-cpu", "id": "heard", "core-id": 1}]


@pytest.mark.parametrize(
    "vm",
    [
        StubVm([EMPTY, FILLED], hears=True),
        StubVm([EMPTY, FILLED], hears=False, has=False),
        StubVm([FILLED], hears=False),
    ],
    ids=["it hears", "it has no ACPI", "no slot is empty"],
)
def test_no_other_guest_is_called_deaf(vm: StubVm) -> None:
    assert acpi.deaf(cast("Vm", vm)) == ""
