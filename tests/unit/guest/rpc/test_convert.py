# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from vcpu_guest.core import cpulist
from vcpu_guest.core.model import AgentInfo, Arrived, Cpu, CpuResult, CpuStatus, Detail, Environment, Reason
from vcpu_guest.core.workload import Cpuset, Pinned, Threads, Workload
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


@given(st.text(max_size=3000))
@example("€" * 1000)
def test_what_is_cut_says_so(text: str) -> None:
    sent = convert.bounded(text)
    assert sent == text or (sent.endswith("...") and text.startswith(sent[:-3]))


def test_no_list_of_cpus_is_cut_in_the_middle() -> None:
    scattered = cpulist.render(range(502, 3000, 2))  # the cut is within a number
    environment = Environment(
        scattered, scattered, scattered, partition_isolated=scattered, unhandled_gpes=tuple(range(100))
    )
    sent = convert.hello(AgentInfo("1", "x", "6", "b", "i", "acpi", "udev"), environment, gated=False).environment
    for name in ("possible", "isolated", "nohz_full", "partition_isolated"):
        found = getattr(sent, name)
        assert 1000 < len(found) <= convert.MAX_STRING
        assert set(found.split(",")) <= set(scattered.split(","))
    assert list(sent.unhandled_gpes) == [*range(64)]  # as many as the host takes


def test_a_list_that_has_no_room_is_left_out_with_its_entry_and_told() -> None:
    many = frozenset(range(0, 8192, 2))  # 19 KB
    long = cpulist.render(range(0, 20000, 2))
    found = convert.workload(
        Workload(
            online=frozenset({3}),
            pinned=(Pinned(many, Threads(1)),) * 100,
            cpusets=(Cpuset("/a", long, "1", "member", True), Cpuset("/b", "1", "1", "member", True)),
        )
    )
    assert found.online == "3"
    assert 40 < len(found.pinned) < 60
    assert [each.cgroup for each in found.cpusets] == ["/b"]
    left = 100 - len(found.pinned) + 1
    assert [each for each in found.unseen if f"{left} have no room" in each]


def test_every_status_has_its_own_on_the_wire() -> None:
    found = {convert.answer(CpuResult("acpi:a", status), "r").result.status for status in CpuStatus}
    assert found == {value for name, value in pb.CpuResult.Status.items() if name != "STATUS_UNSPECIFIED"}
    for status in CpuStatus:
        assert convert.answer(CpuResult("acpi:a", status), "r").result.status == status.value


def test_an_arrival_is_no_result() -> None:
    message = convert.answer(Arrived(Cpu(3, "acpi:a", online=False)), "r")
    assert message.WhichOneof("answer") == "arrived"
    assert (message.request_id, message.arrived.number) == ("r", 3)
