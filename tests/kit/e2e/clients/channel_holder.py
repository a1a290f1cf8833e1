# SPDX-License-Identifier: Apache-2.0
"""``channel_holder.py URI DOMAIN [force]``: another client of libvirt that opens vcpud's channel of a domain.

It prints ``held`` when it has the channel, and keeps it until its standard input ends. With ``force`` it takes the
channel from whoever has it. It uses libvirt's module alone.
"""

from __future__ import annotations

import sys

import libvirt

_PORT = "org.vcpuctl.agent.0"


def main(uri: str, domain: str, how: str = "") -> None:
    connection = libvirt.open(uri)
    stream = connection.newStream(0)
    flags = libvirt.VIR_DOMAIN_CHANNEL_FORCE if how == "force" else 0
    connection.lookupByName(domain).openChannel(_PORT, stream, flags)
    print("held", flush=True)
    sys.stdin.read()
    stream.abort()


main(*sys.argv[1:])
