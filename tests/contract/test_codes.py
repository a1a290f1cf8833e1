# SPDX-License-Identifier: Apache-2.0
"""The codes of reasons that the agent sends, against the host's table of what they mean."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import vcpu_guest
from vcpu_host.agent import convert
from vcpu_host.core import codes
from vcpu_proto.v1 import agent_pb2 as pb

GUEST = Path(vcpu_guest.__file__).parent


def sent() -> Iterator[str]:
    """Every code that the guest's sources make a reason with."""
    for path in GUEST.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="Reason"), args=[ast.Constant(value=str(code)), *_]):
                    yield code


SENT = sorted(set(sent()))


def test_the_guests_sources_give_codes() -> None:
    assert {"hotplug-disabled", "hook-refused", "deconfigured", "apic-id"} < set(SENT)


@pytest.mark.parametrize("code", SENT)
def test_a_code_that_the_agent_sends_has_a_meaning_on_the_host(code: str) -> None:
    assert codes.meaning(convert.reason(pb.Reason(code=code, text="x")).code) != ""


def test_a_code_of_a_newer_agent_passes_as_it_came() -> None:
    reason = convert.reason(pb.Reason(code="from-next-year", text="what it is"))

    assert (reason.code, codes.meaning(reason.code)) == ("from-next-year", "")
