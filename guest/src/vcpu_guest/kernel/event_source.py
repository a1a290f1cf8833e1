# SPDX-License-Identifier: Apache-2.0
"""Where hints of changes come from. They only ever mean "look again"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vcpu_guest.core.model import CpuEvent

OnEvent = Callable[[CpuEvent], None]
#: Called with the reason when events were lost, so that everything has to be looked at.
OnLost = Callable[[str], None]
#: Says whether anybody waits for news.
Urgent = Callable[[], bool]


class EventSource(Protocol):
    """Reports events to callbacks, which it calls in the running event loop. It never blocks the loop."""

    @property
    def name(self) -> str:
        """For Hello."""

    def start(self, on_event: OnEvent, on_lost: OnLost, urgent: Urgent) -> None:
        """Begin to report what happens from now on.

        While `urgent` says that nobody waits for news, the source may put events off for a moment and then report them
        as lost: one look at everything costs less than one look at each event.
        """

    @property
    def hearing(self) -> bool:
        """Say whether events are heard now. While they are not, whoever waits looks more often, without them."""

    def catch_up(self) -> None:
        """Report at once the events that were put off."""

    def close(self) -> None:
        """End: no callback comes afterwards. Closing twice is allowed."""

    @property
    def alive(self) -> bool:
        """Say whether this source can still report events, now or later. If not, the agent ends and starts afresh."""


class NoEvents:
    """A source that never reports anything: whoever waits looks once in a while."""

    name = "none"
    alive = True
    hearing = False

    def start(self, on_event: OnEvent, on_lost: OnLost, urgent: Urgent) -> None:
        """Do nothing: there is nothing to begin."""

    def catch_up(self) -> None:
        """Do nothing: nothing is put off."""

    def close(self) -> None:
        """Do nothing: there is nothing to end."""
