# SPDX-License-Identifier: Apache-2.0
"""What can happen to the state machine, and what it can ask for. What a VM tells by itself is in ``core.vm_events``.

Events are observations. Only those that show a state are proof (``HostLooked``, ``CpuSettled``, ``GuestLooked``); the
others say "look again" (promise 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..guest import AgentInfo, CpuResult, GuestCpu, GuestView
from ..model import HostView
from ..reason import Reason
from ..vm_events import DeviceDeleted, OstReported, QemuGone, UnplugRefused, VmReset, VmStatus

__all__ = [
    "Action",
    "AgentDown",
    "AgentUp",
    "CpuArrived",
    "CpuSettled",
    "DeviceDeleted",
    "DoCancel",
    "DoDial",
    "DoLookGuest",
    "DoLookHost",
    "DoPlug",
    "DoSetOnline",
    "DoUnplug",
    "Event",
    "GuestLookFailed",
    "GuestLooked",
    "HostLooked",
    "Interrupted",
    "OstReported",
    "PlugReturned",
    "QemuGone",
    "RequestEnded",
    "Tick",
    "UnplugRefused",
    "UnplugReturned",
    "VmReset",
    "VmStatus",
]

# --- events ---------------------------------------------------------------------------------------------------------


class HostLooked(NamedTuple):
    """QEMU was looked at; ``asked_at`` is when the question was sent."""

    view: HostView
    asked_at: float


@dataclass(frozen=True, slots=True)
class PlugReturned:
    """``device_add`` for a slot returned: plugged, or QEMU's refusal; or it was withdrawn before it was ``sent``."""

    slot: int
    error: Reason | None
    sent: bool = True


@dataclass(frozen=True, slots=True)
class UnplugReturned:
    """``device_del`` for a slot returned: asked for, or QEMU's refusal; or it came too late to be ``sent``."""

    slot: int
    error: Reason | None
    sent: bool = True


class AgentUp(NamedTuple):
    """A link session was made."""

    session: str
    info: AgentInfo


class AgentDown(NamedTuple):
    """The session ended, or could not be made."""

    reason: Reason


class CpuArrived(NamedTuple):
    """The guest shows a CPU that was waited for."""

    session: str
    cpu: GuestCpu


class CpuSettled(NamedTuple):
    """The agent's answer for one CPU of request ``request``."""

    session: str
    request: int
    result: CpuResult


class GuestLooked(NamedTuple):
    """A full snapshot. ``asked_at`` is when a look was asked for; None for the snapshot that ends ``request``."""

    session: str
    view: GuestView
    asked_at: float | None = None
    request: int | None = None


class GuestLookFailed(NamedTuple):
    """The look at the guest that was asked for has no answer; the session may stand all the same."""

    session: str
    reason: Reason


class RequestEnded(NamedTuple):
    """The stream of request ``request`` ended, in order or not; CPUs it left unanswered are open again."""

    session: str
    request: int
    error: Reason | None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The user wants to stop waiting."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing happened, but time passed."""


Event = (
    HostLooked
    | PlugReturned
    | UnplugReturned
    | AgentUp
    | AgentDown
    | CpuArrived
    | CpuSettled
    | GuestLooked
    | GuestLookFailed
    | RequestEnded
    | OstReported
    | DeviceDeleted
    | UnplugRefused
    | VmReset
    | VmStatus
    | QemuGone
    | Interrupted
    | Tick
)

# --- actions --------------------------------------------------------------------------------------------------------


class DoPlug(NamedTuple):
    """Plug a CPU into the slot; answer with PlugReturned."""

    slot: int


@dataclass(frozen=True, slots=True)
class DoUnplug:
    """Ask for the removal of the slot's CPU; answer with UnplugReturned.

    ``not_after`` is when the guest's word that allows it has grown old, on the clock of ``now``: whatever holds it up
    until then, it is not to be sent. None if there is nobody to ask.
    """

    slot: int
    not_after: float | None = field(default=None, compare=False)


class DoSetOnline(NamedTuple):
    """Send ``SetOnline``; answer with CpuArrived, CpuSettled, GuestLooked and, last, RequestEnded."""

    request: int
    firmware_ids: tuple[str, ...]
    online: bool
    wait: bool
    brief: bool
    for_eject: bool = False  # what goes offline is to be ejected


@dataclass(frozen=True, slots=True)
class DoCancel:
    """Give up request ``request``: nothing that it could still bring is wanted."""

    request: int


@dataclass(frozen=True, slots=True)
class DoLookHost:
    """Look at QEMU's slots; answer with HostLooked."""


@dataclass(frozen=True, slots=True)
class DoLookGuest:
    """Ask the agent for its list of CPUs; answer with GuestLooked, or GuestLookFailed."""


@dataclass(frozen=True, slots=True)
class DoDial:
    """Make a new link session; answer with AgentUp or AgentDown."""


Action = DoPlug | DoUnplug | DoSetOnline | DoCancel | DoLookHost | DoLookGuest | DoDial
