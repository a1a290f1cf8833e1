# SPDX-License-Identifier: Apache-2.0
"""How long an operation waits for an agent that cannot be asked yet: the time is the user's, not to wait in vain."""

from __future__ import annotations

import math

from .. import codes
from ..reason import Reason
from .limits import Limits

#: Somebody is there who may go on: a guest that boots, is busy or frozen for a moment, an agent that is stopped.
_THERE = frozenset({codes.GUEST_BOOTING, codes.NO_ANSWER, codes.AGENT_SLOW})
#: An agent may be about to start: late in the guest's boot, or after its own end. Or there is none in this guest, which
#: looks the same from outside, and must not cost all of the time.
_ABOUT_TO_COME = frozenset({codes.AGENT_ABSENT, codes.AGENT_LOST})


class Patience:
    """The waiting of one operation, which ``began`` at ``now``; all times are in seconds, on one clock."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._until = now + limits.timeout
        self._absent_grace = limits.absent_grace
        self.began = now
        self._absent_since: float | None = None

    def left(self, trouble: Reason, now: float) -> float:
        """Return for how long it is still worth to wait for this trouble to pass; 0 or less: no longer, or never."""
        if trouble.code in _THERE:
            self._absent_since = None
            return self._until - now
        if trouble.code not in _ABOUT_TO_COME:
            return -math.inf
        if self._absent_since is None:
            self._absent_since = now
        return min(self._until, self._absent_since + self._absent_grace) - now

    def over(self, trouble: Reason, now: float) -> Reason:
        """Return the trouble, with how long it was waited for."""
        if trouble.code not in _THERE | _ABOUT_TO_COME:
            return trouble
        return trouble._replace(text=f"{trouble.text} (waited {now - self.began:.0f} s for it)")
