# SPDX-License-Identifier: Apache-2.0
"""What the system's journal says of a decision to change a VM.

Field names are an interface, as those of ``core.log_entry`` are.
"""

from __future__ import annotations

import json

from ..core.text import printable, some_vcpus
from .history import Entry
from .settings import Mode

#: Of every entry of ours about a decision (sd_journal_print(3), "MESSAGE_ID").
MESSAGE_ID = "5f0c9d0b5d6e4d7c9a3b1f6a5b7f6a21"


def fields(name: str, place: str, entry: Entry, mode: str) -> list[tuple[str, str]]:
    """Return the entry's fields: which VM, from how many vCPUs to how many, why, and from which figures."""
    decision = entry.decision
    verb = "scales" if mode == Mode.ACT else "would scale"
    said = f"{name}: {verb} from {decision.online} to {some_vcpus(decision.goal)}: {decision.text}"
    return [
        ("MESSAGE", printable(said, 400)),
        ("MESSAGE_ID", MESSAGE_ID),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "vcpuctl"),
        ("VCPUCTL_VM", printable(name, 100)),
        ("VCPUCTL_SOCKET", printable(place, 400)),
        ("VCPUCTL_AUTOSCALE_MODE", mode),
        ("VCPUCTL_AUTOSCALE_GOAL", str(decision.goal)),
        ("VCPUCTL_AUTOSCALE_CODE", str(decision.code)),
        ("VCPUCTL_AUTOSCALE_DECISION", json.dumps(decision.to_json(decision.at))),
    ]
