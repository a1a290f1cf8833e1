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

    @property
    def name(self) -> str:
        """For Hello."""

    #: Says whether anybody waits for news. While nobody does, the source may put it off for a moment, and then report
    #: what came meanwhile as lost: one look at everything costs less than one at each event.
    urgent: Callable[[], bool]

    def start(self, on_event: OnEvent, on_lost: OnLost) -> None:
        """Begin. What happens from here on is reported; what was before is the scan's business."""

    @property
    def hearing(self) -> bool:
        """Whether changes are heard of now. While they are not, who waits looks by itself, and more often."""

    def catch_up(self) -> None:
        """Report at once what was put off."""

    def close(self) -> None:
        """End; no callback comes after it. Closing twice is allowed."""

    @property
    def alive(self) -> bool:
        """Whether it can be heard of changes again without being made anew; False makes the agent start afresh."""


class NoEvents:
    """A source that never says anything: who waits then looks once in a while."""

    name = "none"
    alive = True
    hearing = False

    def __init__(self) -> None:
        self.urgent: Callable[[], bool] = lambda: True

    def start(self, on_event: OnEvent, on_lost: OnLost) -> None:
        """Nothing to begin."""

    def catch_up(self) -> None:
        """Nothing is put off."""

    def close(self) -> None:
        """Nothing to end."""
