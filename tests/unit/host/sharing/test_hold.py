# SPDX-License-Identifier: Apache-2.0
"""Holding a VM leaves nothing behind, also where there is no VM to hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from vcpu_host.errors import QemuGoneError
from vcpu_host.local import directory
from vcpu_host.local.lock import VmLock
from vcpu_host.local.target import Target
from vcpu_host.sharing.calls import Part
from vcpu_host.sharing.hold import hold


async def test_a_vm_that_is_off_leaves_no_socket_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = tmp_path / "run"
    locks.mkdir(mode=0o700)
    monkeypatch.setattr(directory, "directory", lambda: locks)
    off = Target(str(tmp_path / "qmp"))
    with pytest.raises(QemuGoneError):
        async with hold(off, Part.WRITES, "a test"):
            raise AssertionError("there is no VM")
    assert list(locks.iterdir()) == []
    assert VmLock(off.place, "another").try_take()
