# SPDX-License-Identifier: Apache-2.0
"""What a session reports: the events that Session.receive() returns, and why a session ended.

Events are named tuples and no dataclasses: these take seven times as long to define, at every start of either end.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class EndCode(enum.IntEnum):
    """Why a session ended. Codes below 64 travel in CLOSE frames, the others are only known locally."""

    #: A code that this version does not know.
    OTHER = 0
    #: The program at the other end closed its connection; the usual end.
    LOCAL_ENDED = 1
    #: The other end (agent or coordinator) is stopping.
    STOPPING = 2
    #: A frame was lost or damaged on the way.
    GAP = 3
    #: The ends speak different versions of the link.
    VERSION = 4
    #: The other end could not reach the program behind it (the agent's gRPC server).
    LOCAL_FAILED = 5

    #: A newer OPEN took the session's place.
    REPLACED = 64
    #: The peer answered RESET: it does not know this session (any more).
    UNKNOWN_TO_PEER = 65
    #: The agent was started anew.
    AGENT_RESTARTED = 66
    #: The socket or the port is gone, or the host's end of the port was closed.
    WIRE_LOST = 67


class Opened(NamedTuple):
    """Guest: the host opened a session; its ACCEPT is among the replies."""

    token: bytes


class Accepted(NamedTuple):
    """Host: the guest accepted the session. ``instance`` is random for each start of the agent."""

    token: bytes
    instance: bytes


class Data(NamedTuple):
    """Bytes of the session's stream, in order."""

    data: bytes


class Ended(NamedTuple):
    """The session is over, or was refused. ``text`` is the peer's: not to be trusted, at most 255 characters."""

    token: bytes
    code: EndCode
    text: str = ""

    def __str__(self) -> str:
        """Return the code and the peer's words, escaped."""
        name = self.code.name.lower().replace("_", "-")
        return f"{name}: {self.text!a}" if self.text else name


class VersionMismatch(NamedTuple):
    """Host: the agent refused the session for it speaks another version of the link. An Ended with VERSION follows."""

    ours: int
    theirs: int

    @property
    def update(self) -> str:
        """Which side is older and must be updated: "host" or "guest"."""
        return "host" if self.theirs > self.ours else "guest"


class AgentStarted(NamedTuple):
    """Host: the agent announced itself (it started, or saw the host's end appear)."""

    instance: bytes


class Pong(NamedTuple):
    """The peer answered ping(nonce)."""

    nonce: bytes


Event = Opened | Accepted | Data | Ended | VersionMismatch | AgentStarted | Pong
