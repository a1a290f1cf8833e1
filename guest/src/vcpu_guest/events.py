# SPDX-License-Identifier: Apache-2.0
"""Where hints of changes come from. They only ever mean "look again"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vcpu_guest.core.model import Event

OnEvent = Callable[[Event], None]
#: Called with the reason when events were lost: everything deserves a look.
OnLost = Callable[[str], None]


class EventSource(Protocol):
    """Calls back in the running event loop; never blocks it."""

    name: str
    #: Says whether anybody waits for news. While nobody does, the source may put it off for a moment, and then report
    #: what came meanwhile as lost: one look at everything costs less than one at each event.
    urgent: Callable[[], bool]

    def start(self, on_event: OnEvent, on_lost: OnLost) -> None:
        """Begin. What happens from here on is reported; what was before is the scan's business."""

    def catch_up(self) -> None:
        """Report at once what was put off."""

    def close(self) -> None:
        """End; no callback comes after it. Closing twice is allowed."""

    @property
    def alive(self) -> bool:
        """Whether changes would still be heard of; False makes the agent stop and be started afresh."""


class NoEvents:
    """A source that never says anything: requests that wait then look once in a while."""

    name = "none"
    alive = True

    def __init__(self) -> None:
        self.urgent: Callable[[], bool] = lambda: True

    def start(self, on_event: OnEvent, on_lost: OnLost) -> None:
        """Nothing to begin."""

    def catch_up(self) -> None:
        """Nothing is put off."""

    def close(self) -> None:
        """Nothing to end."""
