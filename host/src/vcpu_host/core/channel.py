# SPDX-License-Identifier: Apache-2.0
"""What is to be said of the agent's virtio-serial port as QEMU's command line has it."""

from __future__ import annotations

from . import codes
from .model import Channel
from .reason import Origin, Reason

#: The name of the agent's virtio-serial port: both ends have to agree on it.
PORT_NAME = "org.vcpuctl.agent.0"
#: A chardev that we can connect to. libvirt's way to the same is <channel type='unix'> with <source mode='bind'/>.
CHARDEV = "-chardev socket,id=vcpuctl,path=PATH,server=on,wait=off"
#: A monitor that we can connect to.
MONITOR = "-qmp unix:PATH,server=on,wait=off"


def no_channel(serial_device: str = "virtio-serial-pci") -> Reason:
    """Return the reason that there is no port; ``serial_device`` is the device that this machine could have one on."""
    lines = f"-device {serial_device} {CHARDEV} -device virtserialport,chardev=vcpuctl,id=vcpuctl,name={PORT_NAME}"
    return Reason(
        codes.NO_CHANNEL,
        Origin.VCPUCTL,
        f"this VM has no virtio-serial port named {PORT_NAME}",
        f"start QEMU with {lines}",
    )


def no_socket(channel: Channel) -> Reason:
    """Return the reason for a port on a chardev that cannot be connected to.

    No path that a user could name changes that.
    """
    if channel.chardev.startswith("unix:"):
        joined = f"QEMU is the client of a socket there ({channel.chardev}, server=off)"
    else:
        joined = f"it is {channel.chardev}" if channel.chardev else "there is none"
    return Reason(
        codes.NO_SOCKET,
        Origin.VCPUCTL,
        f"the agent's port needs a chardev that is a unix socket on which QEMU listens, and {joined}",
        f"start QEMU with {CHARDEV} for it (libvirt: <channel type='unix'>, <source mode='bind'/>)",
    )
