# SPDX-License-Identifier: Apache-2.0
"""Puts the parts of a VM together: the locks, the monitor, the way to the agent, the record.

This is the only module that knows all the adapters. The command line, tests and programs open VMs here.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from .. import ports
from ..core.identity import VmIdentity
from ..local import directory, unix_sockets
from ..local.journal import FileJournal
from ..local.lock import VmLock
from ..local.target import AnyTarget, Domain, Target
from .coordinator import Coordinator

if TYPE_CHECKING:
    from ..libvirt.record_vmm import RecordVmm
    from ..libvirt.vmm import LibvirtVmm
    from ..qmp.preconfig import QmpPreconfig
    from ..qmp.vmm import QmpVmm

#: How long another program that holds the VM is waited for, in seconds.
LOCK_PATIENCE = 2.0
#: Who holds a VM, where the program does not say.
SOMEBODY = "a program that uses vcpu_host"


Q = TypeVar("Q", bound="QmpVmm | QmpPreconfig | LibvirtVmm | RecordVmm")
#: Takes a lock, or raises an error that says who has it.
Take = Callable[[VmLock], Awaitable[None]]
#: Hears which VM it is, before its lock is taken, or raises an error to leave it alone.
Recognise = Callable[[VmIdentity], None]


def _whichever(identity: VmIdentity) -> None:
    del identity


@asynccontextmanager
async def opened(
    target: AnyTarget,
    *,
    holder: str = SOMEBODY,
    patience: float = LOCK_PATIENCE,
    take: Take | None = None,
    recognise: Recognise = _whichever,
) -> AsyncIterator[Coordinator]:
    """Open a VM, to look at it and to change it. Nobody else can open it while the context lasts.

    ``holder`` is what others are told of who has the VM. ``patience`` is how long they are waited for, in seconds;
    ``take`` is another way to take the locks. ``recognise`` hears which VM it is before anything is done to it. Raise
    RefusedError "vm-busy" if somebody still has it then, and what ``qmp.vmm.connect`` raises if there is no monitor.
    The agent is looked for when it is needed, so that its absence is no error here.
    """
    take = take or _waiting(patience)
    if isinstance(target, Domain):
        async with _opened_domain(target, holder, take, recognise) as vm:
            yield vm
        return
    # Late: each brings a library that takes long to import.
    from ..agent.dialer import LinkDialer
    from ..agent.socket_port import SocketPort
    from ..qmp.vmm import connect

    async with _exclusive(target, partial(connect, target.qmp), holder, take, recognise) as (vmm, identity):
        vm = Coordinator(
            vmm,
            LinkDialer(SocketPort(target.agent, vmm.check_port), socket=_link_socket),
            journal=FileJournal(identity),
            identity=identity,
            workload=target.workload,
        )
        try:
            yield vm
        finally:
            await vm.close()


@asynccontextmanager
async def _opened_domain(target: Domain, holder: str, take: Take, recognise: Recognise) -> AsyncIterator[Coordinator]:
    """Open a VM that libvirt owns."""
    from ..agent.dialer import LinkDialer
    from ..libvirt.journal import MetadataJournal
    from ..libvirt.port import ChannelPort
    from ..libvirt.vmm import connect

    port = ChannelPort(target.uri)

    async def connected() -> LibvirtVmm | RecordVmm:
        port.prepare()  # beside the other connection, and only when nobody else has the domain
        return await connect(target.uri, target.domain, monitor=target.monitor)

    try:
        async with _exclusive(target, connected, holder, take, recognise) as (vmm, identity):
            journal = MetadataJournal(vmm.domain, holder)
            port.belongs_to(vmm.domain, journal.holder)
            dialer = LinkDialer(port, socket=_link_socket)
            vm = Coordinator(vmm, dialer, journal=journal, identity=identity, workload=target.workload)
            try:
                yield vm
            finally:
                await vm.close()
    finally:
        await port.close()


@asynccontextmanager
async def open_preconfig(
    target: Target, *, holder: str = SOMEBODY, patience: float = LOCK_PATIENCE
) -> AsyncIterator[ports.Preconfig]:
    """Open a QEMU that may wait in preconfig, where there is no VM yet. Otherwise as ``opened``."""
    from ..qmp.preconfig import connect

    async with _exclusive(target, partial(connect, target.qmp), holder, _waiting(patience)) as (qemu, _):
        yield qemu


def _link_socket() -> str | None:
    """Return the path of the link's socket, or None where that is too deep for gRPC.

    It lies beside the locks, so that the directory is there, and what a killed process leaves is swept. gRPC has to
    connect to it by its whole path.
    """
    path = str(directory.new_socket("link-"))
    return path if len(os.fsencode(path)) < unix_sockets.SUN_PATH else None


def _waiting(patience: float) -> Take:
    async def take(lock: VmLock) -> None:
        await lock.acquire(patience)

    return take


@asynccontextmanager
async def _exclusive(
    target: AnyTarget,
    connect: Callable[[], Awaitable[Q]],
    holder: str,
    take: Take,
    recognise: Recognise = _whichever,
) -> AsyncIterator[tuple[Q, VmIdentity]]:
    """Hold the place where the VM is reached, then the VM itself, which may be reached at others, too."""
    async with VmLock(target.place, holder) as socket_lock:
        await take(socket_lock)
        qemu = await connect()
        try:
            identity = await qemu.identity()
            recognise(identity)
            async with VmLock(identity, holder) as vm_lock:
                await take(vm_lock)
                yield qemu, identity
        finally:
            await qemu.close()
