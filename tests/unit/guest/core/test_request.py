# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
from vcpu_guest.core.request import MAX_ID_LENGTH, MAX_IDS, RequestError, check, check_request_id

GOOD = "acpi:\\_SB_.CPUS.C001"


def goal(ids: list[str], *, online: bool = True, wait: bool = False, scheme: str = "acpi") -> Any:
    return check(ids, online=online, wait=wait, scheme=scheme)


def test_a_good_request_keeps_its_order() -> None:
    ids = ["acpi:b", "acpi:a", "acpi:c"]
    assert goal(ids, wait=True).firmware_ids == ("acpi:b", "acpi:a", "acpi:c")


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([], "no CPU is named"),
        ([""], "empty"),
        ([GOOD, GOOD], "twice"),
        (["papr:4"], "not an identity of this platform"),
        (["acpi"], "not an identity of this platform"),
        (["acpi:"], "not an identity of this platform"),
        (["acpi:" + "x" * MAX_ID_LENGTH], "characters long"),
        ([f"acpi:{n}" for n in range(MAX_IDS + 1)], "at most"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(ids: list[str], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        goal(ids)


def test_a_platform_without_identities_takes_no_request() -> None:
    with pytest.raises(RequestError, match="shows no firmware identities"):
        goal([GOOD], scheme="")


def test_nothing_is_waited_for_in_order_to_go_offline() -> None:
    with pytest.raises(RequestError, match="wait_for_arrival"):
        goal([GOOD], online=False, wait=True)


def test_a_request_id_is_bounded() -> None:
    check_request_id("x" * 128)
    with pytest.raises(RequestError, match="request_id"):
        check_request_id("x" * 129)
