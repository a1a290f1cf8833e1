# SPDX-License-Identifier: Apache-2.0
"""The framed link between host and guest over one virtio-serial port: docs/protocol.md, docs/adr/0004-link.md.

Host (no gRPC in here; ``open_wire`` is a coroutine function such as vcpu_host.agent.socket_wire.wire_to(path))::

    async with await HostLink.connect(open_wire, timeout=5.0) as link: # raises LinkError: .code, .hint
        target = "unix:" + await link.listen()                         # private socket for ONE gRPC connection
        async with grpc.aio.insecure_channel(target) as channel: ...   # link.instance: 8 bytes, new per agent start
        ended = await link.ended                                       # future[Ended]: .code, .text; RPCs fail by then
        await link.ping(1.0)                                           # is the agent's link alive? TimeoutError if not

When ``ended`` is set, the wire is closed too: go on with a new connect(). EndCode.AGENT_RESTARTED and STOPPING say why.

Guest (start the grpc.aio server on ``unix:SERVER`` first)::

    link = GuestLink(vcpu_guest.port.opener("/dev/virtio-ports/NAME"), SERVER, instance=os.urandom(8))
    await link.run()      # until stop(); raises vcpu_guest.port.PortError (.code: port-busy, port-gone ...)
    await link.stop()     # from a signal handler's task: says "agent stopping" to the host, then run() returns
"""

from __future__ import annotations

from .errors import BusyError, LinkError, NoAnswerError, PeerGoneError, SessionLostError, UnreachableError, VersionError
from .events import EndCode, Ended
from .guestend import GuestLink
from .hostend import HostLink, HostWire, OpenHostWire
from .pump import WireProtocol

__all__ = [
    "BusyError",
    "EndCode",
    "Ended",
    "GuestLink",
    "HostLink",
    "HostWire",
    "LinkError",
    "NoAnswerError",
    "OpenHostWire",
    "PeerGoneError",
    "SessionLostError",
    "UnreachableError",
    "VersionError",
    "WireProtocol",
]
