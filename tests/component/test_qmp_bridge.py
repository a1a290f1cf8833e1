# SPDX-License-Identifier: Apache-2.0
"""A real vcpud behind the fake QEMU: what QEMU does arrives in its kernel, and what the agent does shows in QEMU."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kit.fakes.qemu import FakeVm
from kit.until import DEADLINE
from vcpu_host.agent.dialer import LinkDialer
from vcpu_host.agent.socket_port import SocketPort
from vcpu_host.core.guest import GuestView
from vcpu_host.core.model import HostView
from vcpu_host.core.vm_events import OstReported, PortChanged
from vcpu_host.errors import QemuError
from vcpu_host.qmp import QmpVmm, connect


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vq", dir="/tmp") as name:
        yield Path(name)


@asynccontextmanager
async def look(vm: FakeVm) -> AsyncIterator[tuple[QmpVmm, HostView]]:
    vmm = await connect(str(vm.qmp))
    try:
        yield vmm, await vmm.look()
    finally:
        await vmm.close()


async def ost(vmm: QmpVmm, statuses: list[tuple[int, int, int]]) -> None:
    """Wait for these reports: slot, source, status."""
    seen = []
    async with asyncio.timeout(DEADLINE):
        async for event in vmm.events():
            if isinstance(event, OstReported):
                seen.append((event.slot, event.ost.source, event.ost.status))
                if len(seen) == len(statuses):
                    break
    assert seen == statuses


async def test_the_agents_port_shows_in_qemu_as_the_agent_comes_and_goes(folder: Path) -> None:
    with FakeVm(folder, agent=False) as vm:
        async with look(vm) as (vmm, view):
            assert view.channel is not None
            assert not view.channel.guest_open
            vmm.check_port(view, str(vm.agent), None)
            stream = vmm.events()
            vm.start_agent()
            vm.kill_agent()
            async with asyncio.timeout(DEADLINE):
                assert [await anext(stream), await anext(stream)] == [
                    PortChanged(open=True),
                    PortChanged(open=False),
                ]


async def test_a_plugged_cpu_appears_offline_under_the_next_number_and_an_unplugged_one_is_gone(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "8", agent=False) as vm:
        async with look(vm) as (vmm, view):
            await vmm.plug(view.slots[5])
            await ost(vmm, [(5, 1, 0)])
            assert vm.guest_cpus() == {0: True, 5: False}
            path = folder / "sys/devices/system/cpu/cpu1/firmware_node/path"
            assert path.read_text() == "\\_SB_.CPUS.C005\n"
            assert (await vmm.look_slots(view)).slots[5].filled


async def test_an_online_cpu_is_taken_offline_by_the_kernel_itself_before_it_goes(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "8", "--smp", "3", agent=False) as vm:
        assert vm.guest_cpus() == {0: True, 1: True, 2: True}
        async with look(vm) as (vmm, view):
            await vmm.unplug(view.slots[1])
            await ost(vmm, [(1, 3, 132), (1, 3, 0)])
            assert not (await vmm.look_slots(view)).slots[1].filled
        assert vm.guest_cpus() == {0: True, 2: True}
        assert vm.writes() == []


async def test_a_kernel_that_will_not_offline_refuses_the_eject_as_busy(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "8", "--smp", "3", agent=False) as vm:
        vm.steer.call("x-fake-kernel-refuse", slot=2, errno=errno.EBUSY, online=False)
        async with look(vm) as (vmm, view):
            await vmm.unplug(view.slots[2])
            await ost(vmm, [(2, 3, 132), (2, 3, 130)])
            assert (await vmm.look()).slots[2].filled
        assert vm.guest_cpus()[2]


async def test_a_reboot_brings_up_all_cpus_that_are_plugged_with_a_new_agent(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "8") as vm:
        async with look(vm) as (vmm, view):
            await vmm.plug(view.slots[6])
            await ost(vmm, [(6, 1, 0)])
            vm.reboot()
            assert vm.guest_cpus() == {0: True, 6: True}
            channel = (await vmm.look()).channel
            assert channel is not None
            assert channel.guest_open
            with pytest.raises(QemuError):
                await vmm.plug(view.slots[6])


async def test_the_real_agent_answers_over_the_fake_port(folder: Path) -> None:
    with FakeVm(folder, "--maxcpus", "8") as vm:
        async with look(vm) as (vmm, view):
            await vmm.plug(view.slots[3])
            await ost(vmm, [(3, 1, 0)])
            agent = await LinkDialer(SocketPort(None, vmm.check_port)).dial(await vmm.look(), 10)
            ids = ["acpi:\\_SB_.CPUS.C003"]
            answers = [a async for a in agent.set_online(ids, online=True, wait=True, brief=False, timeout=10)]
            assert isinstance(answers[-1], GuestView)
            await agent.close()
        assert vm.guest_cpus() == {0: True, 3: True}
        assert vm.writes() == [(1, True)]
