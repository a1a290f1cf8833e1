# SPDX-License-Identifier: Apache-2.0
"""The document of ``vcpuctl vms``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import Document, of_reason, or_none

if TYPE_CHECKING:
    from ..core.vms import Configured, Found, Vms


def of_vms(vms: Vms) -> Document:
    """Return which VMs are configured, and which QEMU processes there are."""
    return {
        "configured": [_of_configured(file, vms.pids(file)) for file in vms.configured],
        "processes": [_of_process(found) for found in vms.found],
        "unseen": or_none(vms.unseen),
    }


def _of_configured(file: Configured, pids: Iterable[int]) -> Document:
    return {
        "name": file.name,
        "file": file.file,
        "qmp": file.qmp,
        "agent": file.agent,
        "libvirt": file.libvirt,
        "domain": file.domain,
        "hidden_by": file.hidden_by,
        "trouble": or_none(file.trouble),
        "pids": list(pids),
    }


def _of_process(found: Found) -> Document:
    process, offer = found.process, found.offer
    return {
        "pid": process.pid,
        "user": process.user,
        "name": process.says.name,
        "configured": list(found.configured),
        "libvirt": process.says.libvirt,
        "monitors": [{"told": monitor.told, "socket": monitor.here} for monitor in process.monitors],
        "port": found.port,
        "lacks": [of_reason(reason) for reason in found.lacks],
        "add": None if offer is None else {"name": offer.name, "file": offer.file, "command": offer.command},
    }
