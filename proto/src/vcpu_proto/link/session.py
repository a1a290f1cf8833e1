# SPDX-License-Identifier: Apache-2.0
"""The link's session protocol, sans-IO: bytes in, events out; calls in, bytes out.

One class serves both ends. The host opens, the guest accepts; there is at most one session at a time.

Rule 1: every session has a random token, and a frame with another token changes nothing.
Rule 2: a new OPEN replaces whatever session the guest has, for the port has one client, and only the newest one sends.
Rule 3: within a session the sequence numbers of DATA have no holes. A hole ends it; nothing is ever sent again.
Rule 4: replies are bounded: of each kind only the newest waits, however much was received.

No IO, no clock, no random numbers: tokens, instance ids and nonces are arguments.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable

from .events import Accepted, AgentStarted, Data, EndCode, Ended, Event, Opened, Pong, VersionMismatch
from .frames import MAX_PAYLOAD, NO_TOKEN, TOKEN_BYTES, VERSION, Decoder, Frame, Kind, encode

_MOST_TEXT = 255
#: A RESET is repeated for every so many frames of a session that we do not know.
_RESET_EVERY = 64
_SEQ_MASK = 0xFFFFFFFF


class Role(enum.Enum):
    """Which end of the link this is."""

    HOST = "host"
    GUEST = "guest"


class State(enum.Enum):
    """IDLE -> (host only) OPENING -> OPEN -> IDLE."""

    IDLE = "idle"
    OPENING = "opening"
    OPEN = "open"


class SessionError(Exception):
    """The caller asked for what the session's state does not allow: a mistake in our own code."""


class Session:
    """One end of the link.

    Feed what arrives to receive(), act on the events, then write replies() to the wire, together with what open(),
    send(), ping(), beacon() and close() return, in the order of the calls.
    """

    def __init__(self, role: Role, *, instance: bytes = NO_TOKEN, version: int = VERSION) -> None:
        """``instance``: the guest's 8 random bytes, drawn at its start. ``version``: for tests of a mismatch."""
        if len(instance) != TOKEN_BYTES:
            raise ValueError(f"an instance id has {TOKEN_BYTES} bytes, not {len(instance)}")
        self.role = role
        self.state = State.IDLE
        #: The token of the session that is opening or open, else NO_TOKEN.
        self.token = NO_TOKEN
        #: The guest's instance id: its own at the guest, the one from ACCEPT at the host.
        self.instance = instance
        self.decoder = Decoder()
        self._version = version
        self._send_seq = 0
        self._receive_seq = 0
        self._replies: dict[int, bytes] = {}
        self._ended: deque[bytes] = deque(maxlen=16)
        self._unknown = NO_TOKEN
        self._unknown_frames = 0
        common: dict[int, Callable[[Frame, list[Event]], None]] = {
            Kind.DATA: self._on_data,
            Kind.CLOSE: self._on_close,
            Kind.PING: self._on_ping,
            Kind.PONG: self._on_pong,
        }
        if role is Role.HOST:
            self._handlers = common | {
                Kind.ACCEPT: self._on_accept,
                Kind.RESET: self._on_reset,
                Kind.BEACON: self._on_beacon,
            }
        else:
            self._handlers = common | {Kind.OPEN: self._on_open}

    # -- what the caller wants

    def open(self, token: bytes) -> bytes:
        """Return an OPEN, as the host.

        With the token that is opening already, it is the same OPEN again, for one may be lost.
        """
        if self.role is not Role.HOST or self.state is State.OPEN:
            raise SessionError(f"open() at the {self.role.value} while {self.state.value}")
        if len(token) != TOKEN_BYTES or token == NO_TOKEN:
            raise ValueError("a session token has 8 bytes, not all of them zero")
        if self.state is State.IDLE or token != self.token:
            self._begin(token, State.OPENING)
        return self._frame(Kind.OPEN)

    def send(self, data: bytes) -> bytes:
        """Return the DATA frames that carry ``data``."""
        if self.state is not State.OPEN:
            raise SessionError(f"send() while {self.state.value}")
        if len(data) <= MAX_PAYLOAD:
            return self._data(data)
        return b"".join(self._data(data[at : at + MAX_PAYLOAD]) for at in range(0, len(data), MAX_PAYLOAD))

    def ping(self, nonce: bytes) -> bytes:
        """Return a PING; the peer's program need not be alive to answer, its link is enough."""
        if self.state is not State.OPEN:
            raise SessionError(f"ping() while {self.state.value}")
        if len(nonce) != TOKEN_BYTES:
            raise ValueError(f"a nonce has {TOKEN_BYTES} bytes, not {len(nonce)}")
        return self._frame(Kind.PING, nonce)

    def beacon(self) -> bytes:
        """Return a BEACON, as the guest, to be sent at the agent's start and when the host's end appears."""
        if self.role is not Role.GUEST:
            raise SessionError("beacon() at the host")
        return encode(Frame(Kind.BEACON, NO_TOKEN, 0, self.instance, self._version))

    def close(self, code: EndCode, text: str = "") -> bytes:
        """End the session and return the CLOSE that says so; return no bytes when there is none."""
        if self.state is State.IDLE:
            return b""
        frame = self._close_frame(self.token, code, text)
        self.forget()
        return frame

    def forget(self) -> None:
        """End the session without a word: there is nobody to tell."""
        if self.state is not State.IDLE:
            self._ended.append(self.token)
        self.state = State.IDLE
        self.token = NO_TOKEN

    def replies(self) -> bytes:
        """Take the answers that receive() made necessary, and return them."""
        if not self._replies:
            return b""
        owed = b"".join(self._replies.values())
        self._replies.clear()
        return owed

    # -- what comes in

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the wire and return what they mean. Never raise on what the peer sent."""
        events: list[Event] = []
        for frame in self.decoder.feed(data):
            if frame.version != self._version:
                self._on_other_version(frame, events)
                continue
            handler = self._handlers.get(frame.kind)
            if handler is not None:
                handler(frame, events)
        return events

    def _on_open(self, frame: Frame, events: list[Event]) -> None:
        token = frame.token
        if token == NO_TOKEN:
            return
        if self.state is State.OPEN and token == self.token:
            # The host sent its OPEN again, for our ACCEPT took its time.
            self._reply(Kind.ACCEPT, token, self.instance)
        elif token in self._ended:
            # A repeated OPEN of a session that is over: it must not rise again.
            self._reply(Kind.RESET, token)
        else:
            if self.state is State.OPEN:
                self._end(events, EndCode.REPLACED)
            self._begin(token, State.OPEN)
            self._reply(Kind.ACCEPT, token, self.instance)
            events.append(Opened(token))

    def _on_accept(self, frame: Frame, events: list[Event]) -> None:
        if frame.token != self.token or len(frame.payload) < TOKEN_BYTES:
            return
        instance = frame.payload[:TOKEN_BYTES]
        if self.state is State.OPENING:
            self.state = State.OPEN
            self.instance = instance
            events.append(Accepted(self.token, instance))
        elif self.state is State.OPEN and instance != self.instance:
            # A second OPEN outlived the agent that took the first.
            self._end(events, EndCode.AGENT_RESTARTED)

    def _on_data(self, frame: Frame, events: list[Event]) -> None:
        if not self._mine(frame):
            return
        if frame.seq != self._receive_seq:
            text = f"expected frame {self._receive_seq}, got {frame.seq}"
            self._replies[Kind.CLOSE] = self._close_frame(self.token, EndCode.GAP, text)
            self._end(events, EndCode.GAP, text)
            return
        self._receive_seq = (self._receive_seq + 1) & _SEQ_MASK
        if frame.payload:
            events.append(Data(frame.payload))

    def _on_close(self, frame: Frame, events: list[Event]) -> None:
        if self.state is State.IDLE or frame.token != self.token:
            return
        known = frame.payload[0] if frame.payload else 0
        code = EndCode(known) if known < EndCode.REPLACED and known in EndCode._value2member_map_ else EndCode.OTHER
        text = frame.payload[1 : 1 + _MOST_TEXT].decode("utf-8", "replace")
        self._end(events, code, text)

    def _on_reset(self, frame: Frame, events: list[Event]) -> None:
        if self.state is not State.IDLE and frame.token == self.token:
            self._end(events, EndCode.UNKNOWN_TO_PEER)

    def _on_ping(self, frame: Frame, events: list[Event]) -> None:
        del events
        if self._mine(frame) and len(frame.payload) >= TOKEN_BYTES:
            self._reply(Kind.PONG, self.token, frame.payload[:TOKEN_BYTES])

    def _on_pong(self, frame: Frame, events: list[Event]) -> None:
        if self.state is State.OPEN and frame.token == self.token and len(frame.payload) >= TOKEN_BYTES:
            events.append(Pong(frame.payload[:TOKEN_BYTES]))

    def _on_beacon(self, frame: Frame, events: list[Event]) -> None:
        if len(frame.payload) < TOKEN_BYTES:
            return
        instance = frame.payload[:TOKEN_BYTES]
        if self.state is State.OPEN and instance != self.instance:
            self._end(events, EndCode.AGENT_RESTARTED)
        events.append(AgentStarted(instance))

    def _on_other_version(self, frame: Frame, events: list[Event]) -> None:
        """Take a frame of another version. Only the opening and its refusal mean the same in every version."""
        if self.role is Role.GUEST:
            if frame.kind == Kind.OPEN:
                text = f"this agent speaks version {self._version} of the link"
                self._replies[Kind.CLOSE] = self._close_frame(frame.token, EndCode.VERSION, text)
        elif frame.kind == Kind.CLOSE and self.state is State.OPENING and frame.token == self.token:
            events.append(VersionMismatch(self._version, frame.version))
            self._end(events, EndCode.VERSION)
        elif frame.kind == Kind.BEACON and self.state is State.OPEN:
            self._end(events, EndCode.AGENT_RESTARTED)

    # -- the pieces

    def _mine(self, frame: Frame) -> bool:
        """Return whether the frame belongs to the open session; a guest tells the sender of one that does not."""
        if self.state is State.OPEN and frame.token == self.token:
            return True
        if self.role is Role.GUEST:
            # Without this, a host whose agent was restarted would wait for an answer for ever.
            if frame.token != self._unknown:
                self._unknown = frame.token
                self._unknown_frames = 0
            if self._unknown_frames % _RESET_EVERY == 0:
                self._reply(Kind.RESET, frame.token)
            self._unknown_frames += 1
        return False

    def _begin(self, token: bytes, state: State) -> None:
        self.token = token
        self.state = state
        self._send_seq = 0
        self._receive_seq = 0

    def _end(self, events: list[Event], code: EndCode, text: str = "") -> None:
        events.append(Ended(self.token, code, text))
        self.forget()

    def _frame(self, kind: Kind, payload: bytes = b"") -> bytes:
        return encode(Frame(kind, self.token, 0, payload, self._version))

    def _data(self, data: bytes) -> bytes:
        frame = encode(Frame(Kind.DATA, self.token, self._send_seq, data, self._version))
        self._send_seq = (self._send_seq + 1) & _SEQ_MASK
        return frame

    def _close_frame(self, token: bytes, code: EndCode, text: str) -> bytes:
        payload = bytes([code]) + text.encode("utf-8", "replace")[:_MOST_TEXT]
        return encode(Frame(Kind.CLOSE, token, 0, payload, self._version))

    def _reply(self, kind: Kind, token: bytes, payload: bytes = b"") -> None:
        self._replies.pop(kind, None)
        self._replies[kind] = encode(Frame(kind, token, 0, payload, self._version))
