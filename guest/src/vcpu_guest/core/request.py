# SPDX-License-Identifier: Apache-2.0
"""A SetOnline request, and the checks that it has to pass before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: The most CPUs in a request: twice as many as QEMU's largest machine has (q35: 4096).
MAX_IDS = 8192
#: Characters. ACPI paths are far shorter; the contract allows strings of 1024.
MAX_ID_LENGTH = 256
#: Characters: enough for any UUID with a prefix.
MAX_REQUEST_ID_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Request:
    """A checked SetOnline request: distinct, well-formed identities, which are taken in this order.

    `online`: what the CPUs are to become. `wait`: those that are not present yet are waited for.
    `for_eject`: the host is going to eject them. `watch`: threads that lose their last CPU by it are remembered.
    """

    firmware_ids: tuple[str, ...]
    online: bool
    wait: bool
    request_id: str = ""
    for_eject: bool = False
    watch: bool = False


class RequestError(ValueError):
    """The request is wrong, and nothing was done. The text says what is wrong."""


def check(
    firmware_ids: Sequence[str],
    *,
    online: bool,
    wait: bool,
    scheme: str,
    request_id: str = "",
    for_eject: bool = False,
    watch: bool = False,
) -> Request:
    """Return the request if it is well-formed; raise RequestError if not.

    `scheme` is the platform's, for example "acpi"; with "" no CPU can be named.
    """
    check_request_id(request_id)
    if not firmware_ids:
        raise RequestError("no CPU is named: firmware_ids is empty")
    check_identities(firmware_ids, scheme)
    if wait and not online:
        raise RequestError("wait_for_arrival needs online: nothing arrives in order to go offline")
    return Request(tuple(firmware_ids), online, wait, request_id, for_eject and not online, watch)


def check_identities(firmware_ids: Sequence[str], scheme: str) -> None:
    """Raise RequestError unless these are well-formed identities, each named once. They may be none."""
    if len(firmware_ids) > MAX_IDS:
        raise RequestError(f"{len(firmware_ids)} CPUs are named, at most {MAX_IDS} can be")
    seen: set[str] = set()
    for firmware_id in firmware_ids:
        _check_one(firmware_id, scheme)
        if firmware_id in seen:
            raise RequestError(f"{firmware_id!r} is named twice")
        seen.add(firmware_id)


def check_request_id(request_id: str) -> None:
    """Raise RequestError for a request id that is too long to be echoed."""
    if len(request_id) > MAX_REQUEST_ID_LENGTH:
        raise RequestError(
            f"request_id is {len(request_id)} characters long, at most {MAX_REQUEST_ID_LENGTH} are allowed"
        )


def _check_one(firmware_id: str, scheme: str) -> None:
    if not firmware_id:
        raise RequestError("an identity is empty")
    if len(firmware_id) > MAX_ID_LENGTH:
        raise RequestError(f"an identity is {len(firmware_id)} characters long, at most {MAX_ID_LENGTH} are allowed")
    if not scheme:
        raise RequestError("this guest's platform shows no firmware identities, so no CPU can be named")
    found, colon, rest = firmware_id.partition(":")
    if not colon or found != scheme or not rest:
        raise RequestError(f"{firmware_id!r} is not an identity of this platform, they begin with {scheme + ':'!r}")
