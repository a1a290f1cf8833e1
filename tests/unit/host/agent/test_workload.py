# SPDX-License-Identifier: Apache-2.0
"""What a guest may say of its programs, and what of it gets in."""

from __future__ import annotations

import pytest
from vcpu_host.agent.bounds import BadMessageError, parse
from vcpu_host.agent.workload import MAX_ALL_CPUS, MAX_CPUS, MAX_LIST, workload
from vcpu_proto.v1 import agent_pb2 as pb


def _thread(**fields: str | int) -> pb.Threads:
    return pb.Threads(count=1, some=[pb.Thread(pid=1, tid=1, **fields)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "message",
    [
        pb.Workload(online="x"),
        pb.Workload(online="0-70000"),
        pb.Workload(pinned=[pb.Pinned(cpus="3-1")]),
        pb.Workload(pinned=[pb.Pinned(cpus="3")] * (MAX_LIST + 1)),
        pb.Workload(pinned=[pb.Pinned(cpus="3", threads=pb.Threads(some=[pb.Thread()] * 5))]),
        pb.Workload(deadline=_thread(comm="x" * 257)),
        pb.Workload(cpusets=[pb.Cpuset(cgroup="x" * 257)]),
        pb.Workload(unseen=["x" * 1025]),
        pb.Workload(isolated="1,"),
        pb.Workload(isolated="1" + ",1" * (MAX_CPUS // 2)),
        pb.Workload(pinned=[pb.Pinned(cpus="1" + ",1" * (MAX_CPUS // 2 - 1))] * (MAX_ALL_CPUS // MAX_CPUS + 1)),
        pb.Workload(deadline=_thread(comm="中" * 86)),
    ],
)
def test_what_is_out_of_bounds_is_no_message(message: pb.Workload) -> None:
    with pytest.raises(BadMessageError):
        workload(message)


def test_names_come_in_printable() -> None:
    found = workload(pb.Workload(deadline=_thread(comm="\x1b[2J\n", unit="\u202eabc", cgroup="/a\tb")))
    (who,) = found.deadline.some
    assert (who.comm, who.unit, who.cgroup) == ("\\x1b[2J\\n", "\\u202eabc", "/a\\tb")


def test_a_count_is_never_less_than_the_threads_that_are_named() -> None:
    assert workload(pb.Workload(deadline=pb.Threads(some=[pb.Thread()] * 3))).deadline.count == 3


def test_fates_and_quotas_that_nobody_knows_are_passed_over() -> None:
    message = pb.Workload(
        broken=[pb.Broken(cpus="1", fate=77)],  # type: ignore[arg-type]
        quotas=[pb.Quota(cpus=float("nan")), pb.Quota(cpus=-1.0), pb.Quota(cpus=float("inf"))],
    )
    found = workload(message)
    assert (found.broken, found.quotas) == ((), ())


def test_a_million_pins_are_no_message_before_they_take_memory() -> None:
    pin = pb.WorkloadResponse(workload=pb.Workload(pinned=[pb.Pinned(cpus="3")])).workload.SerializeToString()
    whole = pb.WorkloadResponse(request_id="r").SerializeToString() + _field(2, pin * 1_000_000)
    with pytest.raises(BadMessageError, match="fields"):
        parse(pb.WorkloadResponse, whole)


def _field(number: int, data: bytes) -> bytes:
    size, left = bytearray(), len(data)
    while left > 0x7F:
        size.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes((number << 3 | 2, *size, left)) + data
