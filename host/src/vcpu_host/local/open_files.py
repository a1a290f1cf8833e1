# SPDX-License-Identifier: Apache-2.0
"""How many files this process may have open."""

from __future__ import annotations

import resource
from contextlib import suppress

#: Descriptors of one VM at most: its locks, their sockets and who listens there, the monitor, the port, gRPC's.
_PER_VM = 16
#: And of the process itself.
_OWN = 64


def allow_for(vms: int) -> None:
    """Allow this process to hold so many VMs at once, as far as the system lets it (getrlimit(2), RLIMIT_NOFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = vms * _PER_VM + _OWN
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(OSError, ValueError):  # vcpuctl.service may not; where they do not suffice, a VM is not reached
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
