# SPDX-License-Identifier: Apache-2.0
"""Which VMs the service keeps, as their files come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from kit.until import until
from vcpu_host.autoscale.budget import Budget
from vcpu_host.core.reason import Reason
from vcpu_host.local import target
from vcpu_host.local.unix_sockets import place
from vcpu_host.service import keeper as module
from vcpu_host.service.keeper import Keeper
from vcpu_host.service.kept import Heard, HostLimits
from vcpu_host.service.serve import Unheard


@pytest.fixture
def vms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where VMs have their files."""
    monkeypatch.setattr(target, "directories", lambda: (tmp_path,))
    monkeypatch.setattr(module, "_RESCAN", 0.005)
    return tmp_path


@asynccontextmanager
async def _keeping(heard: Heard | None = None, host: HostLimits | None = None) -> AsyncIterator[Keeper]:
    keeper = Keeper(heard or Unheard(), host)
    task = asyncio.ensure_future(keeper.keep())
    try:
        yield keeper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _write(vms: Path, name: str, text: str) -> None:
    (vms / f"{name}.toml").write_text(text)


async def test_files_that_come_change_and_go_are_seen_and_the_others_are_left_alone(vms: Path) -> None:
    _write(vms, "web1", 'qmp = "/nowhere/1"\n')
    async with _keeping() as keeper:
        await until(lambda: [vm.name for vm in keeper.vms] == ["web1"])
        (first,) = keeper.vms
        _write(vms, "web2", 'qmp = "/nowhere/2"\n')
        await until(lambda: [vm.name for vm in keeper.vms] == ["web1", "web2"])
        _write(vms, "web2", 'qmp = "/nowhere/22"\n')
        await until(lambda: "/nowhere/22" in [vm.target.told for vm in keeper.vms])
        _write(vms, "web2", "qmp = 2\n")
        await until(lambda: "web2" in keeper.broken)
        assert keeper.vms == [first]
        (vms / "web2.toml").unlink()
        await until(lambda: not keeper.broken)
        assert keeper.vms == [first]


async def test_a_table_in_a_file_that_changes_is_taken_without_letting_the_vm_go(vms: Path) -> None:
    _write(vms, "web1", 'qmp = "/nowhere/1"\n')
    async with _keeping() as keeper:
        await until(lambda: keeper.vms)
        (first,) = keeper.vms
        _write(vms, "web1", 'qmp = "/nowhere/1"\nworkload = "refuse"\n[autoscale]\nmax = 4\n')
        await until(lambda: first.autoscaler)
        assert keeper.vms == [first]
        assert first.target.workload == "refuse"


async def test_files_that_stay_as_they_are_are_not_read_again_unless_it_is_asked_for(
    vms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, reads = [0], [0]
    monkeypatch.setattr(module, "marks", _counted(target.marks, looks))
    monkeypatch.setattr(module, "listed", _counted(target.listed, reads))
    _write(vms, "web1", 'qmp = "/nowhere/1"\n')
    async with _keeping() as keeper:
        await until(lambda: looks[0] > 5)
        assert reads == [1]
        keeper.rescan()
        await until(lambda: reads == [2])


async def test_a_look_that_is_asked_for_in_the_moment_of_the_usual_one_is_not_lost(
    vms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, reads = [0], [0]

    def looked() -> object:
        if looks[0] == 3:
            # it runs in the same turn of the loop as the end of the wait, and before it
            asyncio.get_running_loop().call_soon(keeper.rescan)
        return marks()

    marks = _counted(target.marks, looks)
    monkeypatch.setattr(module, "_RESCAN", 0.0)
    monkeypatch.setattr(module, "marks", looked)
    monkeypatch.setattr(module, "listed", _counted(target.listed, reads))
    _write(vms, "web1", 'qmp = "/nowhere/1"\n')
    async with _keeping() as keeper:
        await until(lambda: looks[0] > 9)
        assert reads == [2]


def _counted(function: Callable[[], Any], counter: list[int]) -> Callable[[], Any]:
    def counted() -> Any:
        counter[0] += 1
        return function()

    return counted


async def test_a_vm_is_found_by_any_name_of_its_monitor(vms: Path) -> None:
    (vms / "link").symlink_to(vms)
    _write(vms, "web1", f'qmp = "{vms}/qmp"\n')
    _write(vms, "web2", f'qmp = "{vms}/link/qmp2"\n')
    async with _keeping() as keeper:
        await until(lambda: keeper.vms)
        assert keeper.at(f"{vms}/qmp") is keeper.at(place(f"{vms}/link/qmp")) is keeper.vms[0]
        assert keeper.at(f"{vms}/qmp2") is keeper.at(f"{vms}/link/qmp2") is keeper.vms[1]
        assert keeper.at(f"{vms}/other") is None


async def test_a_domain_is_kept_beside_other_vms_and_found_by_its_libvirt_and_name(vms: Path) -> None:
    _write(vms, "web1", f'qmp = "{vms}/qmp"\n')
    _write(vms, "db1", 'libvirt = "qemu+nowhere:///system"\ndomain = "db"\n')
    _write(vms, "bad", 'libvirt = "qemu:///system"\n')
    async with _keeping() as keeper:
        await until(lambda: keeper.vms)
        assert [vm.name for vm in keeper.vms] == ["db1", "web1"]
        assert keeper.at("qemu+nowhere:///system db") is keeper.named("db1")
        assert keeper.at("qemu+nowhere:///system db2") is None
        assert keeper.broken["bad"].code == "bad-vm-file"
        before = keeper.named("db1")
        _write(vms, "db1", 'libvirt = "qemu+nowhere:///system"\ndomain = "db2"\n')
        await until(lambda: keeper.at("qemu+nowhere:///system db2") is not None)
        assert keeper.named("db1") is not before


class _Hears(Unheard):
    """Which VMs there are, and of which it was said that they cannot be looked at since their file names none."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.broken: list[tuple[str, str]] = []

    def configured(self, names: Collection[str]) -> None:
        self.names = sorted(names)

    def gone(self, name: str, reason: Reason) -> None:
        if reason.code.startswith("bad-vm-"):
            self.broken.append((name, reason.code))


async def test_a_vm_whose_file_breaks_is_known_as_such_and_told_once_and_so_is_its_mending(
    vms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = _Hears()
    _write(vms, "web1", 'qmp = "/nowhere/1"\n')
    async with _keeping(heard) as keeper:
        await until(lambda: keeper.vms)
        _write(vms, "web1", "qmp = \n")
        await until(lambda: keeper.broken)
        assert (heard.names, heard.broken) == (["web1"], [("web1", "bad-vm-file")])
        assert keeper.vms == []
        _write(vms, "web2", 'qmp = "/nowhere/2"\n')
        await until(lambda: keeper.vms)
        assert heard.names == ["web1", "web2"]
        _write(vms, "web1", "qmp = 5\n")
        await until(lambda: len(heard.broken) == 2)
        _write(vms, "web1", 'qmp = "/nowhere/1"\n')
        await until(lambda: not keeper.broken)
        assert heard.names == ["web1", "web2"]
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith(f"vcpuctl: web1: vcpuctl: {vms}/web1.toml: ")
    assert second.startswith(f"vcpuctl: web1: vcpuctl: {vms}/web1.toml: qmp ")
    assert third == "vcpuctl: web1: its file is right again"


async def test_a_file_that_breaks_and_then_goes_is_nobodys_trouble(
    vms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = _Hears()
    _write(vms, "web1", "qmp = \n")
    async with _keeping(heard) as keeper:
        await until(lambda: keeper.broken)
        (vms / "web1.toml").unlink()
        await until(lambda: not keeper.broken)
        assert heard.names == []
    assert len(capsys.readouterr().err.splitlines()) == 1


async def test_a_vm_whose_file_breaks_counts_in_the_budget_with_what_it_had(vms: Path) -> None:
    budget = Budget(8)
    (vms / "monitor").touch()  # where there is nothing at all the VM is off, and has none
    _write(vms, "web1", f'qmp = "{vms}/monitor"\n')
    async with _keeping(host=HostLimits(budget)) as keeper:
        await until(lambda: keeper.vms)
        budget.has("web1", 5)
        _write(vms, "web1", "qmp = \n")
        _write(vms, "web2", "qmp = \n")
        await until(lambda: len(keeper.broken) == 2)
        assert (budget.left, budget.unseen) == (3, 1), "web2 may run, and nobody has seen with how many"


async def test_what_a_file_is_called_that_names_no_vm_is_heard_and_told_in_letters_that_can_be_shown(
    vms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = _Hears()
    _write(vms, "\udcff\x1b[2J", "")
    async with _keeping(heard) as keeper:
        await until(lambda: keeper.broken)
    assert heard.names == ["\\udcff\\x1b[2J"]
    assert heard.broken == [("\\udcff\\x1b[2J", "bad-vm-name")]
    assert capsys.readouterr().err.startswith("vcpuctl: \\udcff\\x1b[2J: ")
