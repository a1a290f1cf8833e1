# SPDX-License-Identifier: Apache-2.0
"""What can happen to the state machine, and what it can ask for.

Events are observations. Only those that show a state are proof (``HostLooked``, ``CpuSettled``, ``GuestLooked``); the
others say "look again" (promise 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..guest import AgentInfo, CpuResult, GuestCpu, GuestView
from ..model import HostView, Ost
from ..reason import Reason

# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostLooked:
    """QEMU was looked at; ``asked_at`` is when the question was sent."""

    view: HostView
    asked_at: float


@dataclass(frozen=True, slots=True)
class Added:
    """``device_add`` for a slot returned: plugged, or QEMU's refusal."""

    slot: int
    error: Reason | None


@dataclass(frozen=True, slots=True)
class DelReturned:
    """``device_del`` for a slot returned: asked for, or QEMU's refusal."""

    slot: int
    error: Reason | None


@dataclass(frozen=True, slots=True)
class AgentUp:
    """A link session was made."""

    session: str
    info: AgentInfo


@dataclass(frozen=True, slots=True)
class AgentDown:
    """The session ended, or could not be made."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class CpuArrived:
    """The guest shows a CPU that was waited for."""

    session: str
    cpu: GuestCpu


@dataclass(frozen=True, slots=True)
class CpuSettled:
    """The agent's answer for one CPU of request ``request``."""

    session: str
    request: int
    result: CpuResult


@dataclass(frozen=True, slots=True)
class GuestLooked:
    """A full snapshot. ``asked_at`` is when a look was asked for; None for the snapshot that ends a request."""

    session: str
    view: GuestView
    asked_at: float | None = None


@dataclass(frozen=True, slots=True)
class GuestLookFailed:
    """The look at the guest that was asked for has no answer; the session may stand all the same."""

    session: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """The stream of request ``request`` ended, in order or not; CPUs it left unanswered are open again."""

    session: str
    request: int
    error: Reason | None


@dataclass(frozen=True, slots=True)
class OstSeen:
    """ACPI_DEVICE_OST for a slot."""

    slot: int
    ost: Ost


@dataclass(frozen=True, slots=True)
class PathDeleted:
    """DEVICE_DELETED of a QOM path."""

    path: str


@dataclass(frozen=True, slots=True)
class PathUnplugRefused:
    """DEVICE_UNPLUG_GUEST_ERROR for a QOM path."""

    path: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """RESET: the guest starts again; what it had agreed to is void."""


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The VM was paused, resumed or shut down ("paused", "running", "shutdown")."""

    status: str


@dataclass(frozen=True, slots=True)
class QemuLost:
    """The monitor's connection is gone, and with it all that was under way."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The user wants to stop waiting."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing happened, but time passed."""


Event = (
    HostLooked
    | Added
    | DelReturned
    | AgentUp
    | AgentDown
    | CpuArrived
    | CpuSettled
    | GuestLooked
    | GuestLookFailed
    | RequestEnded
    | OstSeen
    | PathDeleted
    | PathUnplugRefused
    | Restarted
    | StatusChanged
    | QemuLost
    | Interrupted
    | Tick
)

# --- actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DoAdd:
    """Send ``device_add`` for the slot; answer with Added."""

    slot: int
    device_id: str


@dataclass(frozen=True, slots=True)
class DoDel:
    """Send ``device_del`` for the target (id or QOM path); answer with DelReturned."""

    slot: int
    target: str


@dataclass(frozen=True, slots=True)
class DoSetOnline:
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


Action = DoAdd | DoDel | DoSetOnline | DoCancel | DoLookHost | DoLookGuest | DoDial
