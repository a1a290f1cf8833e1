# SPDX-License-Identifier: Apache-2.0
"""Reaching a domain: whatever fails on the way, nothing of the attempt is left, however often it is made."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from kit.fakes.libvirt_module import FakeLibvirt, FakeMonitorModule
from kit.fakes.libvirt_stream import LibvirtError
from kit.fakes.lookalike import Lookalike
from kit.until import until
from vcpu_host.core import codes
from vcpu_host.errors import QemuError, QemuGoneError, UsageError, VcpuctlError
from vcpu_host.libvirt import binding, connection, vmm
from vcpu_host.local.lock import VmLock
from vcpu_host.local.names import known_by
from vcpu_host.local.processes import identify
from vcpu_host.local.target import Domain
from vcpu_host.sharing.taking import ElsewhereError
from vcpu_host.vm.open import opened

URI = "qemu:///system"
OFF = LibvirtError("Requested operation is not valid: domain is not running", 55, 10)
VERSION = {"qemu": {"major": 11, "minor": 1, "micro": 3}, "package": ""}


@pytest.fixture(name="libvirt")
def _libvirt(monkeypatch: pytest.MonkeyPatch) -> FakeLibvirt:
    fake = FakeLibvirt()
    monkeypatch.setattr(binding, "module", lambda: fake)
    return fake


@pytest.fixture(name="qemu")
def _qemu(monkeypatch: pytest.MonkeyPatch) -> FakeMonitorModule:
    fake = FakeMonitorModule(query_version=VERSION)
    monkeypatch.setattr(binding, "monitor_module", lambda: fake)
    return fake


def _left(libvirt: FakeLibvirt) -> list[object]:
    """What is left of connections: a callback keeps libvirt from ending one."""
    return [each for each in libvirt.opened if each.open or each.callbacks]


def _threads() -> int:
    return sum(thread.name.startswith("libvirt ") for thread in threading.enumerate())


async def _no_more_threads_than(before: int) -> None:
    await until(lambda: _threads() <= before)


async def test_a_domain_that_is_off_leaves_nothing_behind_however_often_it_is_tried(
    libvirt: FakeLibvirt, qemu: FakeMonitorModule
) -> None:
    qemu.answers["query-version"] = OFF
    before = _threads()
    for _ in range(3):
        with pytest.raises(QemuGoneError) as error:
            await vmm.connect(URI, "web1")
        assert error.value.reason.code == codes.DOMAIN_OFF
    assert sum(each.registered for each in libvirt.opened) == 6
    assert _left(libvirt) == []
    await _no_more_threads_than(before)


async def test_events_of_which_one_kind_cannot_be_had_leave_none_of_the_other_registered(
    libvirt: FakeLibvirt, qemu: FakeMonitorModule
) -> None:
    libvirt.no_events = LibvirtError("internal error: no event loop", 1, 7)
    with pytest.raises(VcpuctlError):
        await vmm.connect(URI, "web1")
    assert [each.registered for each in libvirt.opened] == [1]
    assert (_left(libvirt), qemu.sent) == ([], [])


async def test_who_gives_up_in_the_middle_leaves_nothing_behind(
    libvirt: FakeLibvirt, qemu: FakeMonitorModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    register = qemu.qemuMonitorEventRegister

    def slowly(*words: object) -> int:
        begun.set()
        assert goes_on.wait(60)
        return register(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(qemu, "qemuMonitorEventRegister", slowly)
    attempt = asyncio.ensure_future(vmm.connect(URI, "web1"))
    await asyncio.to_thread(begun.wait, 60)
    attempt.cancel()
    await asyncio.sleep(0)
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    await until(lambda: not _left(libvirt))
    assert [each.registered for each in libvirt.opened] == [2]


async def test_a_domain_that_is_reached_and_left_again_leaves_nothing_behind(
    libvirt: FakeLibvirt, qemu: FakeMonitorModule
) -> None:
    before = _threads()
    machine = await vmm.connect(URI, "web1")
    assert (qemu.sent, len(libvirt.opened[0].callbacks)) == (["query-version"], 2)
    await machine.close()
    assert _left(libvirt) == []
    await _no_more_threads_than(before)


async def test_a_domain_that_was_left_is_left_again_without_waiting_for_a_thread_that_is_no_more(
    libvirt: FakeLibvirt, qemu: FakeMonitorModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LETS_GO", 3600.0)  # longer than the test's own time
    machine = await vmm.connect(URI, "web1")
    await machine.close()
    await machine.close()  # the coordinator has, and then who has opened it does
    assert _left(libvirt) == []


async def test_of_a_domain_that_somebody_else_has_libvirt_hears_nothing(libvirt: FakeLibvirt, tmp_path: Path) -> None:
    """Each connection may be a login by ssh, and many domains may be asked for at once."""

    async def taken(lock: VmLock) -> None:
        for _ in range(10):
            await asyncio.sleep(0)  # to ask its holder takes a while, in which what was begun goes on
        raise ElsewhereError(tmp_path / "sock", lock.holder)

    before = _threads()
    with pytest.raises(ElsewhereError):
        async with opened(Domain(URI, "web1"), take=taken):
            raise AssertionError("it is somebody else's")
    assert _threads() == before
    assert libvirt.opened == []


async def test_a_daemon_that_fails_at_once_leaves_no_connection_and_no_thread(libvirt: FakeLibvirt) -> None:
    libvirt.sick = LibvirtError("End of file while reading data: Input/output error", 38)
    before = _threads()
    for _ in range(3):
        with pytest.raises(VcpuctlError):
            await vmm.connect(URI, "web1")
    assert _left(libvirt) == []
    await _no_more_threads_than(before)


async def test_a_domain_that_ends_for_good_is_off_and_no_word_of_the_users_is_wrong(
    libvirt: FakeLibvirt, qemu: FakeMonitorModule
) -> None:
    machine = await vmm.connect(URI, "web1")
    libvirt.vanished = True
    with pytest.raises(QemuGoneError) as error:
        await machine.domain.plug(1)
    assert error.value.reason.code == codes.DOMAIN_OFF
    with pytest.raises(QemuGoneError):
        await machine.domain.record()
    await machine.close()
    with pytest.raises(UsageError):
        await vmm.connect(URI, "web2")
    assert _left(libvirt) == []


async def test_a_look_at_a_domain_that_others_keep_busy_waits_for_them_once(
    libvirt: FakeLibvirt, qemu: FakeMonitorModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = await vmm.connect(URI, "web1")
    goes_on = threading.Event()
    said = "Timed out during operation: cannot acquire state change lock (held by monitor=remoteDispatchDomainSave)"

    def busy(domain: object, message: str, flags: int) -> str:
        del domain, flags
        qemu.sent.append(message)
        assert goes_on.wait(60)
        raise LibvirtError(said, 68, 10)

    monkeypatch.setattr(qemu, "qemuMonitorCommand", busy)
    for asked in (1, 2):
        qemu.sent.clear()
        goes_on.clear()
        look = asyncio.ensure_future(machine.look())
        await until(lambda: qemu.sent)
        goes_on.set()
        with pytest.raises(QemuError) as error:
            await look
        assert (len(qemu.sent), error.value.reason.code) == (1, codes.LIBVIRT_BUSY), f"look {asked}"
        assert "remoteDispatchDomainSave" in error.value.reason.text
    await machine.close()
    assert libvirt.opened[0].callbacks == {}


@pytest.mark.parametrize(("whole", "changed"), [(True, [(5, 0), (1, 1)]), (False, [(1, 1)])])
async def test_a_definition_whose_maximum_was_raised_has_no_more_vcpus_than_it_is_to_have(
    libvirt: FakeLibvirt, qemu: FakeMonitorModule, whole: bool, changed: list[tuple[int, int]]
) -> None:
    del qemu
    numbers = {0: "yes", 1: "no", 2: "no", 3: "no", 4: "no", 5: "yes"}
    libvirt.definition = "".join(f"<vcpu id='{at}' enabled='{on}' hotpluggable='yes'/>" for at, on in numbers.items())
    machine = await vmm.connect(URI, "web1")  # two slots today
    assert await machine.keep({0: True, 1: True}, whole=whole) == {}
    assert libvirt.defined == changed
    await machine.close()


def _defined(**vcpus: str) -> str:
    """A definition's vCPUs: ``stays``, ``goes`` or ``off``, by number."""
    kinds = {"stays": ("yes", "no"), "goes": ("yes", "yes"), "off": ("no", "yes")}
    listed = ((at[1:], *kinds[kind]) for at, kind in vcpus.items())
    return "".join(f'<vcpu id="{at}" enabled="{enabled}" hotpluggable="{free}" />' for at, enabled, free in listed)


@pytest.mark.parametrize(
    ("wanted", "whole", "after"),
    [
        ({0: True, 1: True, 2: True, 3: False}, True, _defined(v0="stays", v1="goes", v2="goes", v3="off")),
        ({0: True, 1: False, 2: False, 3: True}, True, _defined(v0="stays", v1="off", v2="off", v3="goes")),
        ({2: True}, False, _defined(v0="stays", v1="stays", v2="goes", v3="off")),
        ({3: False}, False, _defined(v0="stays", v1="stays", v2="stays", v3="off")),
    ],
)
async def test_what_a_definition_is_to_have_can_be_removed_after_the_next_start_but_for_vcpu_0(
    libvirt: FakeLibvirt, qemu: FakeMonitorModule, wanted: dict[int, bool], whole: bool, after: str
) -> None:
    del qemu
    libvirt.definition = _defined(v0="stays", v1="stays", v2="stays", v3="off")  # virsh setvcpus 3 --config
    machine = await vmm.connect(URI, "web1")
    assert await machine.keep(wanted, whole=whole) == {}
    assert libvirt.definition == after
    await machine.close()


@pytest.mark.parametrize(("wanted", "words"), [(True, "cannot be unplugged then"), (False, "followed by")])
async def test_where_libvirt_changes_no_vcpu_of_a_definition_the_reason_says_what_is_in_the_way(
    libvirt: FakeLibvirt, qemu: FakeMonitorModule, wanted: bool, words: str
) -> None:
    del qemu
    libvirt.definition = before = _defined(v0="stays", v1="stays", v2="stays")
    machine = await vmm.connect(URI, "web1")
    failed = await machine.keep({0: True, 1: wanted})
    assert (list(failed), libvirt.definition) == ([1], before)
    assert words in failed[1].text
    assert "followed by non-hotpluggable online vcpus" in failed[1].text
    assert "scale N --config" in failed[1].hint
    await machine.close()


async def test_a_libvirt_that_is_not_qemus_is_a_wrong_uri(libvirt: FakeLibvirt) -> None:
    libvirt.kind = "LXC"
    with pytest.raises(UsageError, match="LXC") as error:
        await vmm.connect("lxc:///system", "web1")
    assert error.value.reason.code == codes.BAD_URI
    assert _left(libvirt) == []


@pytest.mark.parametrize(
    ("uri", "beside"), [(URI, True), ("qemu:///session", True), ("qemu+ssh://root@other/system", False)]
)
async def test_a_domain_is_known_by_its_uuid_and_beside_its_qemus_own_monitor_by_the_first_thread(
    libvirt: FakeLibvirt, qemu: FakeMonitorModule, tmp_path: Path, uri: str, beside: bool
) -> None:
    with Lookalike(tmp_path) as process:
        first = {"cpu-index": 0, "qom-path": "/machine/unattached/device[0]", "thread-id": process.pid}
        qemu.answers["query-cpus-fast"] = [first]
        names = []
        for name in ("web1", "5c3e2f2c-8b3c-4c51-9e5a-1f2f3a4b5c6d"):
            domain = await vmm.connect(uri, name)
            names.append(set(known_by(await domain.identity())))
            await domain.close()
        assert names[0] == names[1]
        socket = known_by(identify(process.pid, process.pid, str(tmp_path / "qmp")))
        assert bool(names[0].intersection(socket)) is beside
    assert _left(libvirt) == []
