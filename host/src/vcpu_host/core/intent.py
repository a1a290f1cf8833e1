# SPDX-License-Identifier: Apache-2.0
"""What QEMU was asked for and whose end is not known yet: one slot's entry of a VM's record."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from .model import Ost

#: What is later, or is no number at all, no calendar has: it could be stored and never shown.
_YEAR_9999 = 253_370_764_800


class IntentKind(StrEnum):
    """What was asked for."""

    PLUG = "plug"
    UNPLUG = "unplug"


class Intent(NamedTuple):
    """One slot's. ``since`` is in seconds since the epoch.

    ``threads`` are the host thread ids that the slot's vCPUs had, and ``ost`` is what the guest had last said of it: by
    these a CPU that was plugged since is told from the one that was to go, and a new refusal from an old one. Where
    QEMU was not looked at, what the guest had said was not seen (``ost_seen``), and no refusal can be called new.
    """

    kind: IntentKind
    slot: int
    device_id: str
    since: float
    threads: tuple[int, ...] = ()
    ost: Ost | None = None
    ost_seen: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return it as it lies in the record."""
        return {
            "kind": str(self.kind),
            "slot": self.slot,
            "id": self.device_id,
            "since": self.since,
            "threads": list(self.threads),
            "ost": [self.ost.source, self.ost.status] if self.ost else None,
            "ost_seen": self.ost_seen,
        }

    @classmethod
    def from_json(cls, entry: Any) -> Intent:
        """Return the intent that lies so in the record.

        Raise ValueError for anything that neither ``to_json`` nor that of an earlier version makes. That did not say
        whether an _OST was seen. Who saw a removal's CPU with its threads saw it, too; a plug has no use for it.
        """
        try:
            ost = entry["ost"]
            blind = entry["kind"] == IntentKind.UNPLUG and ost is None and not entry["threads"]
            seen = entry.get("ost_seen", not blind)
            intent = cls(
                IntentKind(entry["kind"]),
                entry["slot"],
                entry["id"],
                entry["since"],
                tuple(entry["threads"]),
                None if ost is None else Ost(*ost),
                seen,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an intent: {error!r}") from error
        numbers = (intent.slot, *intent.threads, *((intent.ost.source, intent.ost.status) if intent.ost else ()))
        if not all(type(number) is int for number in numbers) or not isinstance(intent.device_id, str):
            raise ValueError("an intent's numbers are whole, and its id is a text")
        if type(intent.ost_seen) is not bool:
            raise ValueError("an intent says by true or false whether an _OST was seen")
        if type(intent.since) not in (int, float) or not 0 <= intent.since < _YEAR_9999:
            raise ValueError(f"since is a time in seconds since 1970, not {intent.since!r:.40}")
        return intent
