# SPDX-License-Identifier: Apache-2.0
"""A fake QEMU: real QMP on real sockets, an x86 machine with its quirks, and a guest that can be told to misbehave.

In a test's own process::

    async with FakeQemu(folder, Config(maxcpus=8)) as qemu:   # folder: a short path (sun_path)
        vmm = await connect(str(qemu.qmp))
        qemu.faults.add(Rule("guest:eject", "refuse", params={"status": 130}))

In a process of its own, steered over a socket::

    with FakeProcess(folder, "--maxcpus", "8") as fake:
        fake.steer.rule("after:device_add", "die")

With a real ``vcpud`` on a fake kernel behind the fake port (needs nothing but processes)::

    with FakeVm(folder, "--maxcpus", "8") as vm:              # vcpuctl --qmp {vm.qmp} ...
        vm.steer.call("x-fake-kernel-refuse", slot=3, errno=16, online=False)
"""

from __future__ import annotations

from kit.fakes.qemu.config import Config
from kit.fakes.qemu.errors import QmpError
from kit.fakes.qemu.faults import Faults, Rule
from kit.fakes.qemu.guest import AutoGuest, FakeGuest
from kit.fakes.qemu.process import FakeProcess, Steer
from kit.fakes.qemu.qemu import ClosedPort, FakeQemu, Port
from kit.fakes.qemu.vm import FakeVm

__all__ = [
    "AutoGuest",
    "ClosedPort",
    "Config",
    "FakeGuest",
    "FakeProcess",
    "FakeQemu",
    "FakeVm",
    "Faults",
    "Port",
    "QmpError",
    "Rule",
    "Steer",
]
