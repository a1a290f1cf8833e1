# SPDX-License-Identifier: Apache-2.0
"""Views that are shown one after another, by a thread of their own: who reads them may take long, or never go on.

Meanwhile the loop answers those who want the VM (promise 8), which it could not do from within a write.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TextIO

from vcpu_host import documents
from vcpu_host.documents import Document

from . import render, standard

if TYPE_CHECKING:
    from rich.live import Live

#: So many views wait to be shown. Of more, the oldest are left out: what matters is how the VM is now.
_KEPT = 16


class Views:
    """Shows views on stdout: ``output`` is the word behind -o; ``live``: each is drawn in the place of the last.

    ``ended`` is done when the last one is shown, after ``finish``, and fails as ``render.writing`` when one cannot be.
    """

    def __init__(self, output: str, *, live: bool) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._output = output
        self._live = live
        self._changed = threading.Condition()
        self._waiting: deque[Document] = deque(maxlen=_KEPT)
        self._finished = False
        # A daemon: if it hangs in a write for good, the process ends all the same.
        threading.Thread(target=self._show_all, args=(self.ended.get_loop(),), name="stdout", daemon=True).start()

    def show(self, view: Document) -> None:
        """Have it shown, in its turn."""
        with self._changed:
            self._waiting.append(view)
            self._changed.notify()

    def finish(self) -> None:
        """Note that no more come."""
        with self._changed:
            self._finished = True
            self._changed.notify()

    def _next(self) -> Document | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finished)
            return self._waiting.popleft() if self._waiting else None

    def _show_all(self, loop: asyncio.AbstractEventLoop) -> None:
        failed: Exception | None = None
        try:
            with render.writing():
                self._show_each(standard.own_stdout())
        except Exception as error:  # noqa: BLE001 - it is raised to whoever awaits the end
            failed = error
        with suppress(RuntimeError):  # the loop is closed: nobody waited any longer
            loop.call_soon_threadsafe(self._has_ended, failed)

    def _show_each(self, stdout: TextIO) -> None:
        with _screen(stdout) if self._live else nullcontext() as screen:
            while (view := self._next()) is not None:
                self._show(view, screen, stdout)

    def _show(self, view: Document, screen: Live | None, stdout: TextIO) -> None:
        if screen is None:
            stdout.write(documents.text(view) + "\n")
        else:
            from .tables import Screen, for_terminal

            screen.update(Screen(for_terminal(view, self._output)), refresh=True)

    def _has_ended(self, error: Exception | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)


def _screen(stdout: TextIO) -> AbstractContextManager[Any]:
    from rich.live import Live

    from .tables import console

    # A map that is longer than the terminal scrolls; "ellipsis" would leave its end out. What others write is not to
    # go through what this thread may hang in.
    return Live(
        console=console(stdout),
        auto_refresh=False,
        screen=False,
        vertical_overflow="visible",
        redirect_stdout=False,
        redirect_stderr=False,
    )
