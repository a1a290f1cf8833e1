# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a VM, as a value that another process can be sent."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import UsageError

if TYPE_CHECKING:
    from ..core.planning.plan import Request


class Kind(StrEnum):
    """What is asked for, and which document answers it (``documents``)."""

    LIST = "list"  # of_view
    WATCH = "watch"  # of_view at every change; in the end nothing
    PLAN = "plan"  # of_plan
    DOCTOR = "doctor"  # of_findings
    IDENTITY = "identity"  # {"vm": local.names.known_by}
    SHAPE = "shape"  # core.migration.shape, and "default_ids"
    RUN = "run"  # of_result
    AUTOSCALE = "autoscale"  # of_autoscale, or switches it; only the service answers
    PROXY = "proxy"  # says where the agent's gRPC service is offered, for as long as it is asked


class Part(StrEnum):
    """What a process holds a VM for."""

    READS = "reads"
    WRITES = "writes"
    KEEPS = "keeps"


class Call(NamedTuple):
    """One question, or one order.

    ``request`` is what PLAN and RUN are about. ``timeout``, in seconds, bounds RUN and WATCH; None: as long as it
    takes. ``steps``: somebody wants to see how far it is. ``verbosity``: as ``-v`` counts. ``for_uid`` is the user who
    asks, where a service has learnt that from the kernel: it is never sent. Nor is ``autoscaler``: the service itself
    asks, and nobody else. ``switch``, of AUTOSCALE: "on" or "off", or "" to look only.
    """

    kind: Kind
    request: Request | None = None
    timeout: float | None = None
    steps: bool = False
    verbosity: int = 0
    for_uid: int | None = None
    autoscaler: bool = False
    switch: str = ""

    @property
    def changes(self) -> bool:
        """Whether it changes the VM."""
        return self.kind is Kind.RUN

    def to_json(self) -> dict[str, Any]:
        """Return what another process is sent."""
        from ..documents import of_request

        document: dict[str, Any] = {"call": str(self.kind), "timeout": self.timeout, "steps": self.steps}
        document["verbosity"] = self.verbosity
        if self.switch:
            document["switch"] = self.switch
        if self.request is not None:
            document["request"] = {"operation": str(self.request.operation), **of_request(self.request)}
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Call:
        """Return the call that was sent. Raise UsageError "bad-call" for anything else."""
        try:
            kind = Kind(document["call"])
            wanted = document.get("request")
            return cls(
                kind,
                _request(wanted) if kind in (Kind.PLAN, Kind.RUN) else None,
                _number(document.get("timeout")),
                document.get("steps") is True,
                2 if document.get("verbosity") == 2 else int(document.get("verbosity") == 1),
                switch=_switch(document.get("switch", "")) if kind is Kind.AUTOSCALE else "",
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            text = f"this is no call that this vcpuctl knows: {error}"
            raise UsageError(Reason(codes.BAD_CALL, Origin.VCPUCTL, text, "use the same version everywhere")) from error


def _switch(value: object) -> str:
    if value not in ("", "on", "off"):
        raise ValueError(f"{value!r:.40} is neither on nor off")
    return str(value)


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError(f"{value!r:.40} is no time in seconds")
    return float(value)


def _request(document: Any) -> Request:
    """Return the request that ``documents.of_request`` made this from, with its operation.

    Raise ValueError, TypeError.
    """
    from ..core.planning.placement import Placement
    from ..core.planning.plan import FLAGS, OnWorkload, Operation, Request

    on = document.get("workload")
    flags = {name: document.get(name, False) for name in FLAGS}
    count, node, slots = document.get("count"), document.get("node"), document.get("slots", [])
    whole = all(value is None or (type(value) is int and 0 <= value < 1 << 32) for value in (count, node))
    if not whole or not all(type(flag) is bool for flag in flags.values()):
        raise ValueError("a number or a yes or no is none")
    if not isinstance(slots, list) or not all(isinstance(slot, str) for slot in slots):
        raise ValueError("the slots are no list of selectors")
    return Request(
        Operation(document["operation"]),
        count,
        tuple(slots),
        **flags,
        placement=Placement(document.get("policy", Placement.LOWEST)),
        node=node,
        workload=None if on is None else OnWorkload(on),
        strict_placement="policy" in document,
    )
