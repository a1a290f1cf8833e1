# SPDX-License-Identifier: Apache-2.0
"""How the files of a VM in the directory of locks and records are named.

Other versions of vcpuctl look for the same names: what they are made of must not change.
"""

from __future__ import annotations

import importlib
import os
from contextlib import suppress
from functools import cache
from typing import Any

from ..core.identity import DomainId, ProcessId, SocketId, VmIdentity

#: Python's own module with SHA-256, of 3.12 and of 3.11.
_OWN = ("_sha2", "_sha256")


def of_vm(identity: VmIdentity) -> str:
    """Return the name, without a suffix, of the files that are about this VM, whichever monitor led to it."""
    match identity.by:
        case ProcessId(pid, started, namespace):
            return f"{pid}-{started}-{namespace}"
        case SocketId(path, inode):
            return f"s{_digest(path)[:24]}-{inode}"
        case DomainId(uuid, host):
            return f"d{_digest(f'{uuid} {host}')[:24]}"


def before(identity: VmIdentity) -> str | None:
    """Return the name that versions before 995dcfe had for this VM's files, if it is another one than ``of_vm``."""
    thread = identity.first_thread
    return None if thread is None or thread == identity.by else of_vm(VmIdentity(thread))


def known_by(identity: VmIdentity) -> tuple[str, ...]:
    """Return what the VM is told apart by from all others, in words that can be sent: two VMs have none in common.

    A domain and its QEMU's own monitor have but the thread in common.
    """
    thread = identity.first_thread
    return (of_vm(identity), *(() if thread is None else (of_vm(VmIdentity(thread)),)))


def of_place(place: str) -> str:
    """Return the name, without a suffix, of the lock on where a VM is reached (``local.target``, ``place``)."""
    return _digest(place)[:32]


def process_of(name: str) -> ProcessId | None:
    """Return the process that a file of this name, without its suffix, is about; None for any other name."""
    parts = name.split("-")
    if len(parts) != 3 or not all(part.isdecimal() and part.isascii() for part in parts):
        return None
    return ProcessId(*(int(part) for part in parts))


def _digest(path: str) -> str:
    digest: str = _sha256()(os.fsencode(path)).hexdigest()
    return digest


@cache
def _sha256() -> Any:
    """Return SHA-256 as Python has it in itself: ``hashlib`` loads OpenSSL for it, 3 ms of each start.

    Python's own ``random`` goes the same way. Where a distribution has left it out, ``hashlib`` has it.
    """
    for name in _OWN:
        with suppress(ImportError):
            return importlib.import_module(name).sha256
    return importlib.import_module("hashlib").sha256
