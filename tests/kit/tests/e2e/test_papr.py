# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import cast

from kit.e2e import papr
from kit.lab import Vm


class StubVm:
    """A guest with two cores: the second is in connector 3 and has the number 1."""

    def shell(self, _command: str, _timeout: float) -> str:
        return "00000000 10000000\n00000001 10000003\n"

    def guest_cpus(self) -> dict[str, object]:
        return {name: {"online": True, "path": path, "apicid": None} for name, path in (("cpu0", "0"), ("cpu1", "1"))}


def test_a_core_is_found_by_its_connector_and_not_by_its_number() -> None:
    vm = cast("Vm", StubVm())
    assert papr.cores(vm) == {0: 0, 1: 3}
    assert {name: cpu["path"] for name, cpu in papr.cpus(vm).items()} == {"cpu0": "0", "cpu1": "3"}


def test_a_core_of_many_threads_is_found_by_its_first() -> None:
    assert papr.parse("0000000800000009 10000008\n") == {8: 8}
