# SPDX-License-Identifier: Apache-2.0
"""This host's KVM is asked where that is allowed, and nothing is made up where it is not."""

from __future__ import annotations

import errno
from pathlib import Path

from vcpu_host.local import kvm


def test_kvm_is_asked_for_its_recommendation(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch()
    asked: list[tuple[int, int]] = []

    def ask(_fd: int, request: int, capability: int) -> int:
        asked.append((request, capability))
        return 16

    assert kvm.recommended_vcpus(str(device), ask) == 16
    ((request, capability),) = asked
    assert (request & 0xFFFF, capability) == (0xAE03, 9)
    assert request & ~0xFFFF in (0, 1 << 29), "on POWER a bit says that it has no data"


def test_where_there_is_no_kvm_or_something_else_nothing_is_known(tmp_path: Path) -> None:
    other = tmp_path / "file"
    other.touch()
    assert kvm.recommended_vcpus(str(tmp_path / "none")) is None
    assert kvm.recommended_vcpus(str(other)) is None, "it is no KVM: ENOTTY"


def test_a_kvm_that_refuses_or_recommends_nothing_tells_nothing(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch()

    def refuses(_fd: int, _request: int, _capability: int) -> int:
        raise OSError(errno.EPERM, "no")

    assert kvm.recommended_vcpus(str(device), refuses) is None
    assert kvm.recommended_vcpus(str(device), lambda *_: 0) is None
