# SPDX-License-Identifier: Apache-2.0
"""Every message that the agent can send means to the host what the agent meant."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from kit.both_ends import IDENTITY
from vcpu_guest.core import cpulist, reasons
from vcpu_guest.core import model as guest_model
from vcpu_guest.core import workload as guest_programs
from vcpu_guest.rpc import convert as guest_convert
from vcpu_host.agent import bounds
from vcpu_host.agent import convert as host_convert
from vcpu_host.agent import workload as host_workload
from vcpu_host.core import guest as host_guest
from vcpu_host.core import reason as host_reason
from vcpu_host.core.workload import cpus
from vcpu_proto.v1 import agent_pb2 as pb

_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=80)
_CODES = st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True)
_NUMBERS = st.none() | st.integers(0, 2**32 - 1)
_REASONS = st.builds(guest_model.Reason, _CODES, _TEXT, st.sampled_from([0, 1, 5, 11, 16, 22, 28, 95]))
_IDS = st.builds("acpi:\\_SB_.CPUS.C{:03X}".format, st.integers(0, 0xFFFF))
_CPUS = st.builds(
    guest_model.Cpu,
    st.integers(0, 65535),
    _IDS,
    st.booleans(),
    st.none() | _REASONS,
    st.none() | _REASONS,
    st.builds(guest_model.Detail, _NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS),
)


def same_reason(theirs: guest_model.Reason | None, ours: host_reason.Reason | None) -> None:
    if theirs is None or ours is None:
        assert theirs is None
        assert ours is None
        return
    who = host_reason.Origin.AGENT if theirs.code.startswith("agent-") else host_reason.Origin.GUEST
    assert (ours.code, ours.text, ours.who) == (theirs.code, theirs.text, who)
    assert ours.errno == reasons.name_of(theirs.errno)


def same_cpu(theirs: guest_model.Cpu, ours: host_guest.GuestCpu) -> None:
    assert (ours.number, ours.firmware_id, ours.online) == (theirs.number, theirs.firmware_id, theirs.online)
    assert (ours.package_id, ours.die_id, ours.core_id, ours.node) == (
        theirs.detail.package_id,
        theirs.detail.die_id,
        theirs.detail.core_id,
        theirs.detail.node,
    )
    same_reason(theirs.cannot_offline, ours.cannot_offline)
    same_reason(theirs.cannot_online, ours.cannot_online)


@given(
    st.lists(_CPUS, max_size=20, unique_by=(lambda cpu: cpu.number, lambda cpu: cpu.firmware_id)),
    st.integers(0, 2**63),
)
def test_a_snapshot_means_the_same_on_both_ends(cpus: list[guest_model.Cpu], generation: int) -> None:
    sent = guest_convert.snapshot(guest_model.Snapshot(generation, tuple(cpus)), IDENTITY).SerializeToString()
    view = host_convert.snapshot(pb.Snapshot.FromString(sent))
    assert (view.generation, view.boot_id, view.instance_id) == (generation, IDENTITY.boot_id, IDENTITY.instance_id)
    for theirs, ours in zip(sorted(cpus, key=lambda cpu: cpu.number), view.cpus, strict=True):
        same_cpu(theirs, ours)


@given(_CPUS)
def test_an_arrival_means_the_same_on_both_ends(cpu: guest_model.Cpu) -> None:
    sent = guest_convert.answer(guest_model.Arrived(cpu), "r").SerializeToString()
    message = pb.SetOnlineResponse.FromString(sent)
    assert (message.request_id, message.WhichOneof("answer")) == ("r", "arrived")
    same_cpu(cpu, host_convert.cpu(message.arrived))


@given(_CPUS, st.sampled_from(guest_model.CpuStatus), _REASONS, st.floats(0, 1e5))
def test_a_result_means_the_same_on_both_ends(
    cpu: guest_model.Cpu, status: guest_model.CpuStatus, reason: guest_model.Reason, seconds: float
) -> None:
    absent = status is guest_model.CpuStatus.ABSENT
    refused = status is guest_model.CpuStatus.REFUSED
    observed = None if absent else cpu
    result = guest_model.CpuResult(cpu.firmware_id, status, reason if refused else None, observed, seconds)
    message = pb.SetOnlineResponse.FromString(guest_convert.answer(result, "r").SerializeToString())
    assert message.WhichOneof("answer") == "result"
    ours = host_convert.result(message.result)
    assert (ours.firmware_id, ours.status.name, ours.seconds) == (cpu.firmware_id, status.name, seconds)
    same_reason(result.reason, ours.reason)
    assert (ours.observed is None) == absent
    if ours.observed is not None:
        same_cpu(cpu, ours.observed)


def test_every_reason_that_the_agent_can_give_is_one_that_the_host_takes() -> None:
    import errno

    context = guest_model_context()
    for code in errno.errorcode:
        for online in (True, False):
            reason = reasons.explain(code, context, online=online)
            ours = host_convert.reason(pb.Reason.FromString(guest_convert.reason(reason).SerializeToString()))
            same_reason(reason, ours)
            assert ours.text


def guest_model_context() -> reasons.Context:
    return reasons.Context(number=3, online=frozenset({0, 1, 3}), deadline_tasks=("video (12)",))


def test_the_most_cpus_that_the_contract_allows_fit_into_what_the_host_takes() -> None:
    cpus = tuple(
        guest_model.Cpu(n, f"acpi:\\_SB_.CPUS.C{n:03X}", True, None, None, guest_model.Detail(n % 8, 0, n, n % 8))
        for n in range(host_convert.MAX_CPUS)
    )
    message = guest_convert.snapshot(guest_model.Snapshot(1, cpus), IDENTITY)
    assert message.ByteSize() < bounds.MAX_MESSAGE
    data = pb.ListCpusResponse(snapshot=message).SerializeToString()
    assert bounds.parse(pb.ListCpusResponse, data).snapshot == message
    assert len(host_convert.snapshot(message).cpus) == host_convert.MAX_CPUS


def test_every_status_of_the_agent_has_a_meaning_to_the_host() -> None:
    wire = {value.name for value in pb.CpuResult.Status.DESCRIPTOR.values} - {"STATUS_UNSPECIFIED"}
    assert wire == {f"STATUS_{status.name}" for status in guest_model.CpuStatus}
    assert {status.name for status in host_guest.CpuStatus} == {status.name for status in guest_model.CpuStatus}


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=300).map(guest_programs.escaped)
#: All CPUs of a large machine, every other one, and some.
_SETS = st.sampled_from([frozenset(range(4096)), frozenset(range(0, 4096, 2)), frozenset({3, 4095}), frozenset[int]()])


@given(_NAMES, _SETS, _SETS)
@example("中" * 85, frozenset(range(1, 4096, 2)), frozenset(range(0, 4096, 2)))
@example(guest_programs.escaped("/user.slice/" + "日本語" * 60), frozenset({0}), frozenset(range(0, 4096, 2)))
def test_what_programs_do_means_the_same_on_both_ends_whatever_their_names_and_their_cpus(
    name: str, one: frozenset[int], other: frozenset[int]
) -> None:
    thread = guest_programs.Thread(7, 8, name, name, name)
    threads = guest_programs.Threads(1, (thread,))
    theirs = guest_programs.Workload(
        online=one,
        pinned=(guest_programs.Pinned(other, threads),),
        cpusets=(guest_programs.Cpuset(name, cpulist.render(one), cpulist.render(other), "isolated", True),),
        units=(guest_programs.AffineUnit(name, other, True),),
        forgotten=threads,
        broken=(guest_programs.Broken(one, guest_programs.Fate.WIDENED, threads),),
        quotas=(guest_programs.Quota(name, name, 1.5),),
        isolated=cpulist.render(one),
        root_effective=cpulist.render(other),
    )
    ours = host_workload.workload(guest_convert.workload(theirs))
    found, expected = cpus.of(one), cpus.of(other)
    assert (ours.online, ours.isolated, ours.root_effective) == (found, found, expected)
    assert [(each.cpus, each.threads.count) for each in ours.pinned] == [(expected, 1)]
    assert [(each.cgroup, each.cpus, each.effective) for each in ours.cpusets] == [(name, found, expected)]
    assert [(each.name, each.cpus) for each in ours.units] == [(name, expected)]
    assert [(each.cpus, each.threads.some[0].comm) for each in ours.broken] == [(found, name)]
    assert [(each.cgroup, each.unit) for each in ours.quotas] == [(name, name)]
    assert ours.unseen == ()
