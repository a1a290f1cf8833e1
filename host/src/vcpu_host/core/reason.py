# SPDX-License-Identifier: Apache-2.0
"""Why something is not so, or was not done, and how an operation ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: The code of a session that broke off: another one may well succeed at once.
AGENT_LOST = "agent-lost"


#: The code of a port that nobody answers on, as the link has it (vcpu_proto.link.NoAnswerError).
NO_ANSWER = "no-answer"


#: The codes of a guest whose drivers are not up yet, of one that has nobody at the port, of an agent that takes long.
GUEST_BOOTING, AGENT_ABSENT, AGENT_SLOW = "guest-booting", "agent-absent", "agent-slow"


class Outcome(StrEnum):
    """How an operation, or its part for one slot, ended."""

    DONE = "done"
    PARTIAL = "partial"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Origin(StrEnum):
    """Who said no."""

    VCPUCTL = "vcpuctl"
    QEMU = "qemu"
    FIRMWARE = "firmware"
    GUEST = "guest"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is not so, or was not done (promise 4).

    ``code`` is stable and for programs; ``text`` holds the words of the one who refused; ``hint`` says what to do;
    ``errno`` is the guest kernel's name of the error ("EBUSY"), empty if no system call failed.
    """

    code: str
    who: Origin
    text: str
    hint: str = ""
    errno: str = ""

    def to_json(self) -> dict[str, str]:
        """The reason as it stands in the reports; empty fields are kept, so that readers need no defaults."""
        return {"code": self.code, "who": str(self.who), "text": self.text, "hint": self.hint, "errno": self.errno}

    def __str__(self) -> str:
        words = f"{self.who}: {self.text}"
        if self.errno and self.errno not in self.text:
            words += f" ({self.errno})"
        return f"{words}; {self.hint}" if self.hint else words
