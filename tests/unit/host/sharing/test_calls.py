# SPDX-License-Identifier: Apache-2.0
"""What is asked of a VM arrives at another process as it was meant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vcpu_host.core import codes
from vcpu_host.core.planning.placement import Placement
from vcpu_host.core.planning.plan import OnWorkload, Operation, Request
from vcpu_host.errors import UsageError
from vcpu_host.local.target import Target
from vcpu_host.sharing.calls import Call, Kind
from vcpu_host.sharing.vm import Vm


@pytest.mark.parametrize(
    "request_",
    [
        Request(Operation.UNPLUG, 2),
        Request(Operation.UNPLUG, 2, strict_placement=True),
        Request(Operation.UNPLUG, 2, workload=OnWorkload.REFUSE),
        Request(Operation.SCALE, 8, placement=Placement.SPREAD, strict_placement=True, workload=OnWorkload.IGNORE),
        Request(Operation.OFFLINE, None, ("3", "cpu5"), workload=OnWorkload.WARN),
    ],
)
def test_a_request_is_the_same_after_the_way(request_: Request) -> None:
    sent = json.loads(json.dumps(Call(Kind.RUN, request_).to_json()))
    assert Call.from_json(sent).request == request_


@pytest.mark.parametrize("wrong", ["often", 1, True, ["warn"]])
def test_a_word_about_programs_that_is_none_is_no_call(wrong: Any) -> None:
    sent = Call(Kind.RUN, Request(Operation.UNPLUG, 1)).to_json()
    sent["request"]["workload"] = wrong
    with pytest.raises(UsageError) as error:
        Call.from_json(sent)
    assert error.value.reason.code == codes.BAD_CALL


def test_what_a_vms_file_says_of_programs_goes_along_to_whoever_holds_the_vm() -> None:
    call = Call(Kind.RUN, Request(Operation.UNPLUG, 1))
    told = Vm(Target("/q", workload="refuse"), "x")._by_file(call)
    assert told.request == Request(Operation.UNPLUG, 1, workload=OnWorkload.REFUSE)
    assert Vm(Target("/q"), "x")._by_file(call) is call
    said = Call(Kind.RUN, Request(Operation.UNPLUG, 1, workload=OnWorkload.WARN))
    assert Vm(Target("/q", workload="refuse"), "x")._by_file(said) is said
    blind = Call(Kind.RUN, Request(Operation.UNPLUG, 1, without_agent=True))
    told = Vm(Target("/q", workload="refuse"), "x")._by_file(blind)
    assert told.request == Request(Operation.UNPLUG, 1, without_agent=True, workload=OnWorkload.REFUSE)
    assert Call.from_json(json.loads(json.dumps(told.to_json()))).request == told.request
    assert Vm(Target("/q", workload="refuse"), "x")._by_file(Call(Kind.LIST)) == Call(Kind.LIST)
