# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with the link, seen from the host.

LinkError
├── UnreachableError   no connection to the chardev's socket (no such file, refused, not permitted)
├── BusyError          another program holds the port's only connection
├── NoAnswerError      connected, but no agent answered in time
├── VersionError       the agent speaks another version of the link
├── PeerGoneError      QEMU closed the socket
└── SessionLostError   the session that was asked is over
"""

from __future__ import annotations

from .events import Ended, VersionMismatch


class LinkError(Exception):
    """Root of the link's errors. ``code`` is stable, ``hint`` says what to do."""

    code = "link"
    hint = ""


class UnreachableError(LinkError):
    """The port's socket cannot be connected to. ``errno`` as connect(2) gave it."""

    code = "port-unreachable"
    hint = "check that the VM runs and that the path is the one of its -chardev socket, and that you may write to it"

    def __init__(self, path: str, cause: OSError) -> None:
        """``path``: the socket; ``cause``: what connect(2) said."""
        super().__init__(f"cannot connect to {path}: {cause.strerror or cause}")
        self.path = path
        self.errno = cause.errno


class BusyError(LinkError):
    """The chardev takes one client at a time, and somebody else is it."""

    code = "port-busy"
    hint = "another program (a vcpuctl, an agent-proxy) holds this port: end it or wait for it"

    def __init__(self, path: str) -> None:
        """``path``: the socket."""
        super().__init__(f"{path} is in use by another program")
        self.path = path


class NoAnswerError(LinkError):
    """No agent accepted within the time.

    ``taken`` is True if QEMU took our bytes: the port is open in the guest, so an agent is there, but stopped, hung or
    not ours. False: nobody in the guest has the port open, or the VM does not run.
    """

    code = "no-answer"

    def __init__(self, seconds: float, *, taken: bool) -> None:
        """``seconds``: how long we waited."""
        who = "the port is open in the guest, but its opener does not answer" if taken else "nobody reads the port"
        super().__init__(f"no answer from the guest agent within {round(seconds, 1):g} s: {who}")
        self.taken = taken
        self.hint = (
            "see whether vcpud is stopped or hangs in the guest"
            if taken
            else "see whether vcpud is installed and runs in the guest, and whether the VM is running and booted"
        )


class VersionError(LinkError):
    """The ends speak different versions of the link. ``update`` is "host" or "guest": the older side."""

    code = "link-version"

    def __init__(self, mismatch: VersionMismatch) -> None:
        """``mismatch``: what the session reported."""
        super().__init__(f"the guest agent speaks version {mismatch.theirs} of the link, we speak {mismatch.ours}")
        self.mismatch = mismatch
        self.update = mismatch.update
        self.hint = f"update the {'vcpu-host' if self.update == 'host' else 'vcpu-guest'} package"


class PeerGoneError(LinkError):
    """The connection was closed at its other end: the VM ended, its chardev was removed, or the way there is lost."""

    code = "peer-gone"
    hint = "see whether the VM still runs"


class SessionLostError(LinkError):
    """The session is over; ``ended`` says why. A new connect() may succeed at once."""

    code = "session-lost"
    hint = "run the command again"

    def __init__(self, ended: Ended) -> None:
        """``ended``: what ended it."""
        super().__init__(f"the link session ended: {ended}")
        self.ended = ended
