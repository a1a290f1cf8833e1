# SPDX-License-Identifier: Apache-2.0
"""What an operation knows of its link session with the agent."""

from __future__ import annotations

from ..reason import Reason

#: Stands for a session where nobody is asked (--without-agent): no confirmation is ever given in it, nor needed.
_NOBODY = "without agent"


class Session:
    """The present link session, or why there is none and when to dial again. Times are the machine's ``now``."""

    __slots__ = ("_dialing", "_hears_since", "_name", "_redial_at", "_trouble")

    def __init__(self, name: str | None, now: float, *, without_agent: bool) -> None:
        self._name = _NOBODY if without_agent else name
        self._trouble: Reason | None = None
        self._dialing = False
        self._redial_at = now
        self._hears_since = now

    @property
    def name(self) -> str | None:
        """The session's name; None while there is none."""
        return self._name

    @property
    def asks_nobody(self) -> bool:
        """Whether there is no agent to be asked, because the user said so (--without-agent)."""
        return self._name == _NOBODY

    @property
    def trouble(self) -> Reason | None:
        """Why the last session ended, or could not be made; None since the present one began."""
        return self._trouble

    @property
    def hears_since(self) -> float:
        """From when on the guest could have been heard, without a break."""
        return self._hears_since

    @property
    def dial_at(self) -> float | None:
        """When to dial, or None if there is a session or one is being made."""
        return self._redial_at if self._name is None and not self._dialing else None

    def dialed(self) -> None:
        """Take that a session is being made."""
        self._dialing = True

    def dial_ended(self) -> None:
        """Take that no session is being made any more."""
        self._dialing = False

    def began(self, name: str, now: float) -> None:
        """Take that a session was made."""
        self._name, self._trouble, self._dialing = name, None, False
        self._hears_since = now

    def lost(self, why: Reason, redial_at: float) -> None:
        """Take that the session is over: dial again then."""
        self._name, self._trouble, self._redial_at = None, why, redial_at

    def hears_anew(self, now: float) -> None:
        """Take that the guest could not be heard until now, or shows that it gets on.

        What it owes is not overdue yet.
        """
        self._hears_since = now
