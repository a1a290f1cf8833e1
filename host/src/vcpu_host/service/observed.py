# SPDX-License-Identifier: Apache-2.0
"""The service as Prometheus sees it: what is heard of the VMs becomes metrics, and these are handed out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.reason import Reason
from ..documents import Document
from .exposition import Address, Exposition
from .metrics import Metrics
from .serve import write_down
from .textfile import Textfile

if TYPE_CHECKING:
    from ..autoscale.decision import Decision
    from ..autoscale.history import Entry


class Observed:
    """Hears of all VMs (``kept.Heard``), and counts."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def view(self, name: str, document: Document) -> None:
        """See Heard."""
        self._metrics.looked(name, document)

    def result(self, name: str, document: Document) -> None:
        """See Heard."""
        self._metrics.operated(name, document)

    def gone(self, name: str, reason: Reason) -> None:
        """See Heard."""
        self._metrics.look_failed(name, reason.code)

    def sessions(self, name: str, more: int) -> None:
        """See Heard."""
        for _ in range(more):
            self._metrics.session_began(name)

    def decided(self, name: str, decision: Decision, mode: str) -> None:
        """See Heard."""
        self._metrics.decided(name, decision, mode)

    def changed(self, name: str, place: str, entry: Entry, mode: str) -> None:
        """See Heard."""
        write_down(name, place, entry, mode)
        self._metrics.changed(name, entry.decision.direction)

    def configured(self, names: Collection[str]) -> None:
        """See Heard."""
        self._metrics.configure(names)


@asynccontextmanager
async def handed_out(metrics: Metrics, where: Address | None, file: Path | None) -> AsyncIterator[None]:
    """Serve the metrics at ``where`` and write them to ``file``, each if it is given, for as long as the context lasts.

    Raise UsageError if nothing can be served there, or written.
    """
    async with AsyncExitStack() as stack:
        if where is not None:
            await stack.enter_async_context(Exposition(metrics, where))
        if file is not None:
            await stack.enter_async_context(Textfile(metrics, file))
        yield
