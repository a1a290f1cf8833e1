# SPDX-License-Identifier: Apache-2.0
"""vcpuctl: resizes the vCPUs of a running QEMU virtual machine end to end (host side).

The names in ``__all__`` are the library, with the promise in CONTRIBUTING; docs/library.md shows how to use them. All
other modules may change at any time. A name is imported when it is first used, so that importing this package is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .core.operation.limits import Limits
    from .core.operation.result import OperationResult, SlotResult
    from .core.planning.placement import Placement
    from .core.planning.plan import OnWorkload, Operation, Plan, Request
    from .core.reason import Origin, Outcome, Reason
    from .core.view import SlotView, VmView
    from .errors import (
        AgentGoneError,
        QemuError,
        QemuGoneError,
        RefusedError,
        UnreachableError,
        UsageError,
        VcpuctlError,
    )
    from .local.target import Domain, Target
    from .sharing.hold import open_vm
    from .vm.coordinator import Coordinator

__version__ = "0.1.0"

__all__ = [
    "AgentGoneError",
    "Coordinator",
    "Domain",
    "Limits",
    "OnWorkload",
    "Operation",
    "OperationResult",
    "Origin",
    "Outcome",
    "Placement",
    "Plan",
    "QemuError",
    "QemuGoneError",
    "Reason",
    "RefusedError",
    "Request",
    "SlotResult",
    "SlotView",
    "Target",
    "UnreachableError",
    "UsageError",
    "VcpuctlError",
    "VmView",
    "open_vm",
]

#: The module of each name.
_HOMES = {
    **dict.fromkeys(("Coordinator",), "vm.coordinator"),
    **dict.fromkeys(("Limits",), "core.operation.limits"),
    **dict.fromkeys(("OnWorkload", "Operation", "Plan", "Request"), "core.planning.plan"),
    **dict.fromkeys(("OperationResult", "SlotResult"), "core.operation.result"),
    **dict.fromkeys(("Origin", "Outcome", "Reason"), "core.reason"),
    **dict.fromkeys(("Placement",), "core.planning.placement"),
    **dict.fromkeys(("SlotView", "VmView"), "core.view"),
    **dict.fromkeys(("Domain", "Target"), "local.target"),
    **dict.fromkeys(("open_vm",), "sharing.hold"),
}


def __getattr__(name: str) -> object:
    """Import one of ``__all__`` (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the library's names, imported or not."""
    return sorted({*globals(), *__all__})
