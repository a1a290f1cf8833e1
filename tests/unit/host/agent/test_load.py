# SPDX-License-Identifier: Apache-2.0
"""WatchLoad's messages as samples: seconds out of microseconds, and nothing beyond the contract."""

from __future__ import annotations

import pytest
from vcpu_host.agent.bounds import BadMessageError
from vcpu_host.agent.load import load_sample
from vcpu_proto.v1 import agent_pb2 as pb


def test_what_is_not_told_is_not_known() -> None:
    message = pb.WatchLoadResponse(monotonic_seconds=5.5, boot_id="b", cpus=[pb.CpuLoad(number=1, busy=2_000_000)])
    sample = load_sample(message)
    assert (sample.guest_time, sample.boot) == (5.5, "b")
    assert sample.cpus[0].busy == pytest.approx(2.0)
    assert (sample.cpus[0].waited, sample.cpus[0].idle) == (None, None)
    assert (sample.cpu_pressure, sample.memory_pressure, sample.runnable) == (None, None, None)


def test_all_that_is_told_arrives() -> None:
    cpu = pb.CpuLoad(number=1, busy=1, steal=2_000_000, iowait=3_000_000, waited=4_000_000, idle=5_000_000)
    message = pb.WatchLoadResponse(instance_id="i", cpus=[cpu], cpu_pressure=5_000_000, memory_pressure=0, runnable=7)
    sample = load_sample(message)
    assert sample.boot == "i"
    told = sample.cpus[0]
    assert [told.steal, told.iowait, told.waited, told.idle] == pytest.approx([2.0, 3.0, 4.0, 5.0])
    assert [sample.cpu_pressure, sample.memory_pressure, sample.runnable] == pytest.approx([5.0, 0.0, 7])


def test_a_cpu_twice_breaks_the_contract() -> None:
    with pytest.raises(BadMessageError, match="twice"):
        load_sample(pb.WatchLoadResponse(cpus=[pb.CpuLoad(number=1), pb.CpuLoad(number=1)]))


def test_a_number_that_no_kernel_gives_a_cpu_breaks_the_contract() -> None:
    assert load_sample(pb.WatchLoadResponse(cpus=[pb.CpuLoad(number=65535)])).cpus[0].number == 65535
    with pytest.raises(BadMessageError, match="the number 65536"):
        load_sample(pb.WatchLoadResponse(cpus=[pb.CpuLoad(number=65536)]))
