# SPDX-License-Identifier: Apache-2.0
"""Reads how many queue pairs network devices use and have, as ethtool -l does. Nothing is sent by it."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Callable, Iterator

from vcpu_guest.core.workload import NetworkDevice, escaped
from vcpu_guest.kernel.sysfs import Sysfs

_DEVICES = "class/net"
#: The driver whose devices start with the queue pairs of the CPUs that are there, and are never raised.
_DRIVER = "virtio_net"
#: include/uapi/linux/sockios.h and ethtool.h. Every user may ask for channels (net/ethtool/ioctl.c, dev_ethtool).
_SIOCETHTOOL, _GCHANNELS = 0x8946, 0x3C
#: struct ethtool_channels: the command; the most of rx, tx, other, combined; those in use, in the same order.
_CHANNELS = struct.Struct("=9I")

#: Returns how many queue pairs the device of this name uses and has. Raises OSError.
Channels = Callable[[str], tuple[int, int]]


def channels(name: str) -> tuple[int, int]:
    """Return how many combined channels (queue pairs) the device uses, and how many it has. Raise OSError."""
    asked = array.array("B", _CHANNELS.pack(_GCHANNELS, *([0] * 8)))
    request = struct.pack("16sP16x", name.encode("utf-8", "surrogateescape"), asked.buffer_info()[0])
    # Any socket will do (net/socket.c, sock_do_ioctl), and a unix one is what the unit's sandbox allows.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        fcntl.ioctl(asking, _SIOCETHTOOL, request)
    said = _CHANNELS.unpack(asked.tobytes())
    return said[8], said[4]


def network_devices(sysfs: Sysfs, ask: Channels = channels) -> Iterator[NetworkDevice]:
    """Yield the virtio network devices."""
    for name in sorted(sysfs.links_in(_DEVICES)):
        if sysfs.link_name(f"{_DEVICES}/{name}/device/driver") != _DRIVER:
            continue
        try:
            used, most = ask(name)
        except OSError:  # the device has gone, or its driver has no channels
            continue
        yield NetworkDevice(escaped(name), _DRIVER, used, most)
