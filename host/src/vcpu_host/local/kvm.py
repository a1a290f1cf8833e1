# SPDX-License-Identifier: Apache-2.0
"""What this host's KVM says of itself, where this user may ask it."""

from __future__ import annotations

import fcntl
import os
import termios
from collections.abc import Callable

#: Who may ask it, may make VMs: it is mostly root's and the group kvm's.
DEVICE = "/dev/kvm"
#: What marks an ioctl without data on this architecture: nothing on most, a bit on POWER. FIOCLEX is one, too.
_NO_DATA = termios.FIOCLEX & 0xE0000000
#: The ioctl KVM_CHECK_EXTENSION, and the capability that is asked about (include/uapi/linux/kvm.h).
_CHECK_EXTENSION = _NO_DATA | 0xAE03
_CAP_NR_VCPUS = 9


def recommended_vcpus(device: str = DEVICE, ask: Callable[[int, int, int], int] = fcntl.ioctl) -> int | None:
    """Return how many vCPUs KVM recommends a VM to have at most; None where there is no KVM, or it may not be asked."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        number = ask(fd, _CHECK_EXTENSION, _CAP_NR_VCPUS)
    except OSError:
        return None
    finally:
        os.close(fd)
    return number or None
