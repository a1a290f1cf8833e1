# SPDX-License-Identifier: Apache-2.0
"""The files' names are what other versions look for."""

from __future__ import annotations

from pathlib import Path

import pytest
from vcpu_host.core.identity import ProcessId, SocketId, VmIdentity
from vcpu_host.local import names
from vcpu_host.local.target import Target


def test_the_names_do_not_change() -> None:
    assert names.of_vm(VmIdentity(ProcessId(4711, 815, 4026531836), listens=True)) == "4711-815-4026531836"
    assert names.of_vm(VmIdentity(SocketId("@web1", 0))) == "s567217b48ef5f95926847978-0"
    assert names.of_vm(VmIdentity(SocketId("/run/vms/web1/qmp.sock", 77))) == "s3f2f860d8b28372a134523c4-77"
    assert names.of_place("/run/vms/web1/qmp.sock") == "3f2f860d8b28372a134523c4ca54df9d"


def test_a_vm_has_one_name_whoever_listens_on_the_monitor() -> None:
    process = ProcessId(4711, 815, 4026531836)
    assert names.of_vm(VmIdentity(process, listens=True)) == names.of_vm(VmIdentity(process))


def test_a_thread_that_is_the_process_gives_no_second_name() -> None:
    process = ProcessId(4711, 815, 4026531836)
    assert names.before(VmIdentity(process, first_thread=process)) is None
    assert names.before(VmIdentity(process)) is None
    assert names.before(VmIdentity(process, first_thread=process._replace(pid=4712))) == "4712-815-4026531836"


def test_a_monitor_has_one_name_by_every_path_to_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "qmp")
    link, qmp, other = (names.of_place(Target(str(tmp_path / name)).place) for name in ("link", "qmp", "other"))
    assert link == qmp != other


def test_the_process_can_be_read_off_the_name() -> None:
    process = ProcessId(4711, 815, 4026531836)
    assert names.process_of(names.of_vm(VmIdentity(process))) == process


@pytest.mark.parametrize("name", ["", "1-2", "1-2-3-4", "a-2-3", "s0123-7", "-1-2", "1--3", "\u0661-2-3"])
def test_other_names_are_of_no_process(name: str) -> None:
    assert names.process_of(name) is None


@pytest.mark.parametrize("own", [(), ("no_such_module",), names._OWN], ids=["none", "left out", "Python's own"])
def test_names_are_the_same_whoever_makes_the_digest(own: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_OWN", own)
    names._sha256.cache_clear()
    try:
        assert names.of_place("/run/vms/web1/qmp.sock") == "3f2f860d8b28372a134523c4ca54df9d"
    finally:
        names._sha256.cache_clear()
