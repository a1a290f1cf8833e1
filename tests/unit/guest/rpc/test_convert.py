# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from vcpu_guest.core.model import Arrived, Cpu, CpuResult, CpuStatus, Detail, Reason
from vcpu_guest.rpc import convert
from vcpu_proto.v1 import agent_pb2 as pb

numbers = st.none() | st.integers(0, 2**32 - 1)
reasons = st.builds(Reason, st.text(max_size=20), st.text(), st.integers(0, 200))
cpus = st.builds(
    Cpu,
    st.integers(0, 65535),
    st.text(),
    st.booleans(),
    st.none() | reasons,
    st.none() | reasons,
    st.builds(Detail, numbers, numbers, numbers, numbers),
)


@given(cpus)
def test_a_cpu_keeps_every_field_and_what_is_unknown_stays_absent(cpu: Cpu) -> None:
    message = pb.Cpu.FromString(convert.cpu(cpu).SerializeToString())
    assert (message.number, message.firmware_id, message.online) == (cpu.number, cpu.firmware_id, cpu.online)
    for name in ("package_id", "die_id", "core_id", "node"):
        value = getattr(cpu.detail, name)
        assert (getattr(message, name) if message.HasField(name) else None) == value
    for name in ("cannot_offline", "cannot_online"):
        reason = getattr(cpu, name)
        assert message.HasField(name) == (reason is not None)
        if reason is not None:
            assert getattr(message, name).code == reason.code


@given(st.text(max_size=3000))
@example("\udc80 as os.uname gives for a byte that is no UTF-8")
@example("€" * 1000)
def test_every_string_is_bounded_and_sendable(text: Any) -> None:
    assert len(convert.bounded(text).encode()) <= convert.MAX_STRING


def test_every_status_has_its_own_on_the_wire() -> None:
    found = {convert.answer(CpuResult("acpi:a", status), "r").result.status for status in CpuStatus}
    assert found == {value for name, value in pb.CpuResult.Status.items() if name != "STATUS_UNSPECIFIED"}
    for status in CpuStatus:
        assert convert.answer(CpuResult("acpi:a", status), "r").result.status == status.value


def test_an_arrival_is_no_result() -> None:
    message = convert.answer(Arrived(Cpu(3, "acpi:a", online=False)), "r")
    assert message.WhichOneof("answer") == "arrived"
    assert (message.request_id, message.arrived.number) == ("r", 3)
