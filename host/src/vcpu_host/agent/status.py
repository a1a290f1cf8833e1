# SPDX-License-Identifier: Apache-2.0
"""The one table from gRPC statuses and link errors to our errors."""

from __future__ import annotations

import grpc
from vcpu_proto.link import BusyError, LinkError, SessionLostError

from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.text import printable
from vcpu_host.errors import AgentGoneError, RefusedError, VcpuctlError

AGENT_SLOW_HINT = "the guest is busy, or its agent is stopped"

#: status -> (code, is the session still good, what to do)
_STATUSES: dict[grpc.StatusCode, tuple[str, bool, str]] = {
    grpc.StatusCode.INVALID_ARGUMENT: (codes.AGENT_REJECTED, True, "update the older side"),
    grpc.StatusCode.FAILED_PRECONDITION: (codes.AGENT_REJECTED, True, "update the older side"),
    grpc.StatusCode.UNIMPLEMENTED: (codes.AGENT_TOO_OLD, True, "update vcpu-guest in the guest"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (codes.AGENT_SLOW, True, AGENT_SLOW_HINT),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (codes.AGENT_BAD_MESSAGE, False, "update vcpud in the guest"),
}


def of_rpc(error: grpc.aio.AioRpcError) -> VcpuctlError:
    """Return what a failed call means."""
    known = _STATUSES.get(error.code())
    text = printable(error.details() or error.code().name)
    if known is None:
        return AgentGoneError(Reason(codes.AGENT_LOST, Origin.AGENT, f"the call to the agent failed: {text}"))
    code, usable, hint = known
    reason = Reason(code, Origin.AGENT, f"the agent said: {text}", hint)
    return VcpuctlError(reason) if usable else AgentGoneError(reason)


def rejected(text: str) -> VcpuctlError:
    """Return the error that the agent found the request itself wrong, and did nothing."""
    code, _, hint = _STATUSES[grpc.StatusCode.INVALID_ARGUMENT]
    return VcpuctlError(Reason(code, Origin.AGENT, f"the agent said: {printable(text)}", hint))


def failed(text: str) -> VcpuctlError:
    """Return the error that the agent met something in the guest that kept it from answering this request."""
    hint = "see its log in the guest: journalctl -u vcpud"
    return VcpuctlError(Reason(codes.AGENT_FAILED, Origin.AGENT, f"the agent said: {printable(text)}", hint))


def of_link(error: LinkError) -> VcpuctlError:
    """Return what a link that could not be made means."""
    if isinstance(error, SessionLostError):
        return AgentGoneError(Reason(codes.AGENT_LOST, Origin.AGENT, str(error), error.hint))
    reason = Reason(
        error.code, Origin.VCPUCTL if isinstance(error, BusyError) else Origin.AGENT, str(error), error.hint
    )
    return RefusedError(reason) if isinstance(error, BusyError) else AgentGoneError(reason)


def bad_message(text: str) -> AgentGoneError:
    """Return the error that the agent broke the contract: nothing more is asked of it in this session."""
    return AgentGoneError(
        Reason(
            codes.AGENT_BAD_MESSAGE,
            Origin.AGENT,
            f"the agent sent what it may not: {text}",
            "update vcpud in the guest",
        )
    )
