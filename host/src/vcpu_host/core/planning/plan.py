# SPDX-License-Identifier: Apache-2.0
"""What an operation will do, as data: a request, and the plan that ``core.planning.planner`` makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from ..intent import IntentKind
from ..model import Slot
from ..reason import Reason
from ..view import SlotView
from .placement import Placement

if TYPE_CHECKING:
    from ..workload.model import Note


class Operation(StrEnum):
    """What was asked for."""

    PLUG = "plug"
    UNPLUG = "unplug"
    SCALE = "scale"
    ONLINE = "online"
    OFFLINE = "offline"


class StepKind(StrEnum):
    """What happens to one slot."""

    PLUG = "plug"  # device_add, then online
    ONLINE = "online"  # QEMU has it already: the guest's side alone
    UNPLUG = "unplug"  # offline, then device_del
    OFFLINE = "offline"  # the guest's side alone


class OnWorkload(StrEnum):
    """What to do about programs of the guest that an operation would hurt."""

    IGNORE = "ignore"  # do not even look
    WARN = "warn"  # look, take other slots first, and tell
    REFUSE = "refuse"  # refuse what hurts any


#: The fields of a request that are on or off; documents name those that are on.
FLAGS = ("in_guest", "without_agent", "atomic", "config")
#: What the fields of a request are that have few values.
_TYPES = {
    "operation": Operation,
    "placement": Placement,
    "workload": OnWorkload | None,
    **dict.fromkeys((*FLAGS, "strict_placement"), bool),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What the user wants. ``count`` counts vCPUs; for scale it is the goal. ``selectors`` exclude ``count``.

    Scale takes a count alone, online and offline take selectors alone. ``in_guest`` makes scale take CPUs on- and
    offline only: none is plugged or unplugged. ``without_agent`` makes plug and unplug go by QEMU's evidence alone,
    which is no proof of what the guest did. ``atomic``: all of it or nothing. ``config``: the VM's definition is to
    have the same vCPUs at its next start. ``placement`` says which slots a count means, ``node`` of which NUMA node
    they are. ``workload``: what to do about programs that would be hurt; None is the VM's own default. Without the
    agent nobody looks at them, so REFUSE refuses whatever takes CPUs away. ``strict_placement``: the placement was
    asked for, so no slot is passed over for their sake.

    Raises ValueError, in words for people, for what does not go together or is of another type: nobody else checks
    what programs ask for.
    """

    operation: Operation
    count: int | None = None
    selectors: tuple[str, ...] = ()
    in_guest: bool = False
    without_agent: bool = False
    atomic: bool = False
    config: bool = False
    placement: Placement = Placement.LOWEST
    node: int | None = None
    workload: OnWorkload | None = None
    strict_placement: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        self._check_slots()
        self._check_agent()
        self._check_choice()

    def _check_types(self) -> None:
        for name, kind in _TYPES.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise ValueError(f"{name} is {value!r:.40}, which it cannot be")
        if self.count is not None and (type(self.count) is not int or self.count < 1):
            raise ValueError(f"a count of vCPUs is a whole number of at least 1, and {self.count!r:.40} is none")
        if self.node is not None and type(self.node) is not int:
            raise ValueError(f"a NUMA node is a whole number, and {self.node!r:.40} is none")
        selectors: object = self.selectors
        # Of a text each letter would be one.
        if not isinstance(selectors, tuple | list) or not all(isinstance(each, str) for each in selectors):
            raise ValueError(f"selectors are a tuple of texts, one for each slot, and {selectors!r:.40} is none")
        object.__setattr__(self, "selectors", tuple(selectors))  # a request is a value: it can be compared and hashed

    def _check_slots(self) -> None:
        if self.count is not None and self.selectors:
            raise ValueError("slots are named one by one, or counted, not both")
        if self.selectors and self.operation is Operation.SCALE:
            raise ValueError("scale states how many vCPUs the whole VM is to have: plug or unplug slots by their names")
        if self.count is not None and self.operation in (Operation.ONLINE, Operation.OFFLINE):
            raise ValueError(f"{self.operation} needs slots by their names, and takes no number of vCPUs")

    def _check_agent(self) -> None:
        if self.in_guest and self.operation is not Operation.SCALE:
            raise ValueError(f"of scale alone the guest's side alone can be asked for, and this is {self.operation}")
        if self.without_agent and self.operation not in (Operation.PLUG, Operation.UNPLUG):
            raise ValueError(f"{self.operation} needs the agent: only plug and unplug can do without it")

    def _check_choice(self) -> None:
        chooses = self.placement is not Placement.LOWEST or self.node is not None
        if chooses and self.selectors:
            raise ValueError("slots are named one by one, or chosen by a policy or a node, not both")
        if chooses and self.guest_alone:
            raise ValueError(
                "a policy or a node chooses slots to plug and unplug, and none is plugged or unplugged here"
            )
        if self.config and self.guest_alone:
            raise ValueError("the VM's definition says what is plugged, and none is plugged or unplugged here")
        if self.node is not None and self.operation is Operation.SCALE:
            raise ValueError("scale states how many vCPUs the whole VM is to have: for one node, plug or unplug there")

    @property
    def spares_programs(self) -> bool:
        """Whether slots are passed over whose CPUs somebody in the guest is pinned to alone."""
        return self.placement is Placement.LOWEST and not self.strict_placement

    @property
    def guest_alone(self) -> bool:
        """Whether QEMU's side stays as it is."""
        return self.in_guest or self.operation in (Operation.ONLINE, Operation.OFFLINE)


class Step(NamedTuple):
    """What will be done with one slot, why, and what happens to that slot if it cannot be finished."""

    kind: StepKind
    slot: Slot
    device_id: str
    firmware_ids: tuple[str, ...]
    why: str
    on_failure: str
    online_before: frozenset[str] = frozenset()  # the threads that are online to begin with: a way back restores these
    replaceable: bool = False  # a CPU that the guest never notices may be taken out and plugged again
    begun_before: bool = False  # an earlier operation asked QEMU for something that has not come to its end
    arriving: bool = False  # that was a plug, and the guest shows no CPU yet: one may come at any moment


class Refusal(NamedTuple):
    """Why the operation, or its part for one slot, will not be tried.

    ``unreachable``: the agent cannot be asked, which the operation itself reports as an error.
    """

    reason: Reason
    slot: int | None = None
    unreachable: bool = False


class Plan(NamedTuple):
    """Steps in order. If there are refusals no step is taken. ``already`` lists slots that are as wanted.

    ``recover`` are removals that an earlier operation began: they are brought to their end first, and then the plan
    is made anew. ``one_at_a_time`` says that a plug waits until the guest has taken notice of the one before it.
    ``record_alone``: QEMU itself is not looked at, only its owner's record. ``smt_remedy`` is how threads come online
    that the guest's SMT mode keeps offline. ``notes`` say what it would do to the guest's programs.
    """

    request: Request
    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    already: tuple[SlotView, ...] = ()
    one_at_a_time: bool = True
    recover: tuple[Step, ...] = ()
    smt_remedy: str = ""
    record_alone: bool = False
    notes: tuple[Note, ...] = ()

    @property
    def vcpus(self) -> int:
        """How many vCPUs the steps touch."""
        return sum(step.slot.vcpus for step in self.steps)

    def on_failure(self, step: Step) -> str:
        """Return what happens if that one of the steps cannot be finished: to its slot, and to what else was done."""
        if len(self.steps) < 2:
            return step.on_failure
        others = "goes back, too" if self.request.atomic else "stays"
        return f"{step.on_failure}; what else was done {others}"


_KEEP = {
    StepKind.PLUG: "the slot is unplugged again",
    StepKind.ONLINE: "the slot stays plugged, as it was",
    StepKind.UNPLUG: "the CPU goes back online",
    StepKind.OFFLINE: "the CPU stays online",
}


def step(kind: StepKind, view: SlotView, why: str) -> Step:
    """Return the step of that kind for the slot as it stands."""
    device_id = view.slot.device_id or (view.slot.default_id if kind is StepKind.PLUG else "")
    online = frozenset([thread.firmware_id for thread in view.threads if thread.online])
    begun = view.pending is not None or bool(view.slot.leaving)
    plugged = view.pending is not None and view.pending.kind is IntentKind.PLUG
    return Step(
        kind,
        view.slot,
        device_id,
        view.firmware_ids,
        why,
        _KEEP[kind],
        online,
        begun_before=begun,
        arriving=plugged and view.slot.filled and all(thread.cpu is None for thread in view.threads),
        replaceable=kind is StepKind.ONLINE and view.not_removable is None,
    )
