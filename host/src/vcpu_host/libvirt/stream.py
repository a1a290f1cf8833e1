# SPDX-License-Identifier: Apache-2.0
"""A libvirt stream (virDomainOpenChannel) as an asyncio transport.

A stream has no flow control that can be relied on (seen on 9.0 and 12.8): a send, also of a non-blocking stream, hangs
for good with every other call of its connection if the guest does not read; and what the guest writes piles up without
limit in the memory of a client that does not read. So a stream has a connection to itself and a thread in which it may
hang, everything is read at once, and a stream of which more than ``MOST`` bytes wait here is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from . import binding, words

#: So many bytes from the guest may wait here for whoever reads them. (One look at 4096 CPUs has some 0.5 MB.)
MOST = 4 << 20
#: From so many bytes on that the guest has not taken, whoever writes is asked to wait.
_HIGH, _LOW = 64 * 1024, 16 * 1024
_PIECE = 64 * 1024
#: What a non-blocking stream returns when nothing can be read or written.
_LATER = -2
#: How long the thread that writes may take to end when it is told to, in seconds. One that takes longer hangs.
_ENDS = 0.5
#: How long the thread that writes waits for a stream that takes nothing at the moment, in seconds: nothing tells it.
_PAUSE = 0.01


class StreamTransport(asyncio.Transport):
    """Made in the event loop, with an open stream; ``begin`` in the thread of its connection.

    ``cut`` is called once, in the event loop, if the stream hangs or floods: it has to free the channel by another way,
    unless the stream has let go of it by then (``held``). ``over`` is called there when the stream is used no more.
    """

    def __init__(
        self, stream: Any, protocol: asyncio.Protocol, cut: Callable[[], None], over: Callable[[], None]
    ) -> None:
        super().__init__()
        self._stream = stream
        self._protocol = protocol
        self._cut = cut
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._held = 0  # bytes that were read and not handed on yet; guarded by the lock
        self._waiting: deque[bytes] = deque()
        self._paused = False
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unsent = 0
        self._full = False
        self._closing = False
        self._lost = False
        self._stop = threading.Event()
        self._let_go = threading.Event()
        self._ending: asyncio.TimerHandle | None = None  # until it is taken for one that hangs
        self._was_cut = False
        self._settled = asyncio.Event()
        self._writing = threading.Thread(target=self._write_all, name="libvirt stream", daemon=True)

    def begin(self) -> None:
        """Have what comes read from now on. Called in the thread of the connection."""
        libvirt = binding.module()
        wanted = libvirt.VIR_STREAM_EVENT_READABLE | libvirt.VIR_STREAM_EVENT_HANGUP | libvirt.VIR_STREAM_EVENT_ERROR
        self._stream.eventAddCallback(wanted, self._readable, None)

    def start(self) -> None:
        """Tell the protocol that it has a transport, and have written what is written."""
        self._protocol.connection_made(self)
        self._writing.start()

    # --- asyncio.Transport ------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio.WriteTransport."""
        if self._closing or not data:
            return
        self._unsent += len(data)
        self._out.put(bytes(data))
        if self._unsent > _HIGH and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        """See asyncio.WriteTransport: what libvirt has not taken. What the guest has taken of it nobody knows."""
        return self._unsent

    def pause_reading(self) -> None:
        """See asyncio.ReadTransport: the stream is read all the same, up to ``MOST`` bytes."""
        self._paused = True

    def resume_reading(self) -> None:
        """See asyncio.ReadTransport."""
        self._paused = False
        self._hand_on()

    def is_closing(self) -> bool:
        """See asyncio.BaseTransport."""
        return self._closing

    def close(self) -> None:
        """See asyncio.BaseTransport."""
        if not self._closing:
            self._closing = True
            self._out.put(None)

    def abort(self) -> None:
        """See asyncio.WriteTransport. A write that hangs is ended by another way, when it is sure that it does."""
        self._end_writing()
        self._lose(None)

    # --- how it ends --------------------------------------------------------------------------------------------------

    @property
    def held(self) -> bool:
        """Whether the stream still has the channel, as far as this end knows. It may be asked in any thread."""
        return self._writing.is_alive() and not self._let_go.is_set()  # it lives on for a moment after that

    async def settled(self) -> None:
        """Return when the stream that was aborted is used no more, or was found to hang."""
        await self._settled.wait()

    def _end_writing(self) -> None:
        self.close()
        self._stop.set()
        if self._ending is None:
            self._ending = self._loop.call_later(_ENDS, self._cut_off)

    def _cut_off(self) -> None:
        if self.held and not self._was_cut:
            self._was_cut = True
            self._cut()
        self._settled.set()

    def _used_no_more(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._settled.set()
        self._over()

    # --- in the thread of libvirt's events ----------------------------------------------------------------------------

    def _readable(self, stream: Any, happened: int, opaque: object) -> None:
        """Take all that there is."""
        del happened, opaque
        try:
            while (piece := stream.recv(_PIECE)) != _LATER:
                if not piece:
                    return self._read_no_more(stream, "the other end closed the channel")
                with self._lock:
                    self._held += len(piece)
                    flood = self._held > MOST
                if flood:
                    return self._read_no_more(stream, "the guest sends more than anybody reads", cut=True)
                self._later(self._received, piece)
        except binding.module().libvirtError as error:
            self._read_no_more(stream, words.said(error))
        return None

    def _read_no_more(self, stream: Any, why: str, *, cut: bool = False) -> None:
        """Read no more of the stream.

        ``stream`` is the callback's own: ours may be gone, if it was closed in the middle of a flood.
        """
        with contextlib.suppress(binding.module().libvirtError):  # it is lost, and with it its callback
            stream.eventRemoveCallback()
        self._later(self._ended, why, cut)

    # --- in the thread of its own -------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        libvirt = binding.module()
        try:
            while (data := self._out.get()) is not None:
                self._send(memoryview(data))
                self._later(self._sent, len(data))
            with contextlib.suppress(libvirt.libvirtError):  # it has ended already
                self._stream.eventRemoveCallback()
            self._stream.finish()
        except libvirt.libvirtError as error:
            self._later(self._ended, words.said(error), False)
        else:
            self._later(self._lose, None)
        finally:
            self._stream = None  # libvirt holds the channel for as long as there is an object of it
            self._let_go.set()
            self._later(self._used_no_more)

    def _send(self, data: memoryview) -> None:
        while data and not self._stop.is_set():
            taken = self._stream.send(bytes(data[:_PIECE]))
            if taken == _LATER:
                self._stop.wait(_PAUSE)
            else:
                data = data[taken:]

    def _later(self, what: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(what, *arguments)

    # --- in the event loop --------------------------------------------------------------------------------------------

    def _received(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting and not self._paused and not self._lost:
            piece = self._waiting.popleft()
            with self._lock:
                self._held -= len(piece)
            self._protocol.data_received(piece)

    def _sent(self, count: int) -> None:
        self._unsent -= count
        if self._full and self._unsent <= _LOW and not self._lost:
            self._full = False
            self._protocol.resume_writing()

    def _ended(self, why: str, cut: bool) -> None:  # noqa: FBT001 - from another thread, by place
        """End: nothing more can be read, or written."""
        if cut:
            self._cut_off()
        self._end_writing()
        self._lose(ConnectionError(why))

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._protocol.connection_lost(error)
