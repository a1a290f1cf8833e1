# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from vcpu_host.agent import convert
from vcpu_host.agent.bounds import BadMessageError
from vcpu_host.core.guest import CpuResult, CpuStatus, Environment, GuestCpu, GuestView
from vcpu_host.core.reason import Origin, Reason
from vcpu_proto.v1 import agent_pb2 as pb

_PRINTABLE = st.characters(exclude_categories=("C", "Z"))
_NUMBERS = st.integers(0, 2**32 - 1)
_REASONS = st.builds(
    Reason,
    st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True),
    st.just(Origin.GUEST),
    st.text(_PRINTABLE, max_size=100),
    hint=st.just(""),
    errno=st.sampled_from(["", "EBUSY", "EPERM"]),
)
_CPUS = st.builds(
    GuestCpu,
    st.integers(0, convert.MAX_CPUS - 1),
    st.text(_PRINTABLE, max_size=40),
    st.booleans(),
    cannot_offline=st.none() | _REASONS,
    cannot_online=st.none() | _REASONS,
    package_id=st.none() | _NUMBERS,
    die_id=st.none() | _NUMBERS,
    core_id=st.none() | _NUMBERS,
    node=st.none() | _NUMBERS,
)


def _reason(value: Reason) -> pb.Reason:
    return pb.Reason(code=value.code, text=value.text, errno_name=value.errno)


def _cpu(value: GuestCpu) -> pb.Cpu:
    message = pb.Cpu(number=value.number, firmware_id=value.firmware_id, online=value.online)
    for name in ("cannot_offline", "cannot_online"):
        if (reason := getattr(value, name)) is not None:
            getattr(message, name).CopyFrom(_reason(reason))
    for name in ("package_id", "die_id", "core_id", "node"):
        if (number := getattr(value, name)) is not None:
            setattr(message, name, number)
    return message


def _snapshot(*cpus: pb.Cpu) -> pb.Snapshot:
    return pb.Snapshot(generation=4, boot_id="b", instance_id="i", cpus=cpus)


# --- round trips ------------------------------------------------------------------------------------------------------


@given(_CPUS)
def test_a_cpu_comes_over_the_wire_as_it_was_sent(cpu: GuestCpu) -> None:
    assert convert.cpu(pb.Cpu.FromString(_cpu(cpu).SerializeToString())) == cpu


@given(
    st.lists(_CPUS, max_size=6, unique_by=lambda cpu: cpu.number).map(
        lambda cpus: [
            c for i, c in enumerate(cpus) if c.firmware_id not in {d.firmware_id for d in cpus[:i]} or not c.firmware_id
        ]
    )
)
def test_a_snapshot_comes_over_the_wire_in_the_order_of_the_numbers(cpus: list[GuestCpu]) -> None:
    message = _snapshot(*map(_cpu, cpus))
    assert convert.snapshot(message) == GuestView(4, "b", "i", tuple(sorted(cpus, key=lambda cpu: cpu.number)))


@given(
    _CPUS,
    st.sampled_from([CpuStatus.DONE, CpuStatus.ALREADY, CpuStatus.REFUSED]),
    st.none() | _REASONS,
    st.floats(0, 1e5),
)
def test_a_result_comes_over_the_wire_as_it_was_sent(
    cpu: GuestCpu, status: CpuStatus, reason: Reason | None, seconds: float
) -> None:
    message = pb.CpuResult(
        firmware_id=cpu.firmware_id,
        status=f"STATUS_{status.name}",
        observed=_cpu(cpu),
        reason=_reason(reason) if reason else None,
        seconds=seconds,
    )
    assert convert.result(message) == CpuResult(cpu.firmware_id, status, reason, cpu, seconds)


def test_hello_comes_over_the_wire_as_it_was_sent() -> None:
    environment = pb.Environment(
        possible="0-3", auto_online_rules=["a", "b"], kernel_max=8, smt_control="on", clocksource="tsc"
    )
    hello = pb.HelloResponse(
        agent_version="1", kernel="6.1", arch="x86_64", capabilities=["set-online"], environment=environment
    )
    info = convert.agent_info(hello, 1)
    assert (info.version, info.protocol, info.kernel, info.capabilities) == ("1", 1, "6.1", ("set-online",))
    assert info.environment == Environment("0-3", "", "", 8, "on", ("a", "b"), None, "tsc")
    environment.eject_enabled = False
    assert convert.environment(environment).eject_enabled is False


def test_a_lack_of_rights_is_the_agents_and_not_the_guests() -> None:
    assert convert.reason(pb.Reason(code="agent-no-rights", text="t", errno_name="EROFS")).who is Origin.AGENT
    assert convert.reason(pb.Reason(code="smt-off", text="t")).who is Origin.GUEST


def test_how_long_the_guest_has_a_cpu_in_hand_is_bounded_and_makes_no_other_picture() -> None:
    ours = convert.cpu(pb.Cpu(number=1, firmware_id="acpi:a", switching_seconds=2.5))
    assert ours.switching == 2.5
    assert ours == convert.cpu(pb.Cpu(number=1, firmware_id="acpi:a"))
    for seconds in (-1.0, 1e6, math.inf, math.nan):
        with pytest.raises(BadMessageError):
            convert.cpu(pb.Cpu(number=1, switching_seconds=seconds))


def test_what_the_guest_says_of_its_kernel_is_true_false_or_not_said() -> None:
    silent = convert.environment(pb.Environment())
    assert (silent.hypervisor_flag, silent.acpi, silent.writable) == (None, None, None)
    assert (silent.kernel_arguments, silent.unwritable, silent.unhandled_gpes) == ((), (), ())
    message = pb.Environment(
        kernel_arguments=["nr_cpus=4", "acpi=off\x1b"],
        hypervisor_flag=True,
        acpi=False,
        writable=False,
        unwritable=["f"],
    )
    said = convert.environment(message)
    assert (said.hypervisor_flag, said.acpi, said.writable, said.unwritable) == (True, False, False, ("f",))
    assert said.kernel_arguments[0] == "nr_cpus=4"
    assert "\x1b" not in said.kernel_arguments[1]


# --- the guest is not trusted -----------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_within_bounds_or_refused(data: bytes) -> None:
    for read in (
        lambda: convert.snapshot(pb.Snapshot.FromString(data)),
        lambda: convert.result(pb.CpuResult.FromString(data)),
        lambda: convert.environment(pb.Environment.FromString(data)),
    ):
        try:
            read()
        except (BadMessageError, DecodeError, UnicodeDecodeError) as error:
            assert str(error)  # noqa: PT017 - both ends are right


@given(st.text(max_size=200))
def test_no_text_of_the_guest_gets_in_unescaped(text: str) -> None:
    clean = text.encode(errors="ignore").decode()
    reason = convert.reason(pb.Reason(code="code", text=clean, errno_name="E"))
    assert reason.text.isprintable()
    shown = convert.agent_info(pb.HelloResponse(kernel=clean[:60], capabilities=[clean[:16]]), 1)
    assert shown.kernel.isprintable()
    assert all(item.isprintable() for item in shown.capabilities)
    assert convert.cpu(pb.Cpu(firmware_id=clean[:60])).firmware_id.isprintable()


@pytest.mark.parametrize("code", ["", "a b", "a\x1b[2J", "a_b", "é", "ا", "x" * 65, "-;"])
def test_a_reason_whose_code_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(BadMessageError):
        convert.reason(pb.Reason(code=code, text="text"))


@pytest.mark.parametrize(
    "message",
    [
        pb.Cpu(firmware_id="x" * 257),
        pb.Cpu(firmware_id="漢" * 86),
        pb.Cpu(cannot_offline=pb.Reason(code="c", text="x" * 1025)),
        pb.Cpu(cannot_online=pb.Reason(code="c", errno_name="E" * 33)),
        pb.Cpu(cannot_online=pb.Reason()),
    ],
)
def test_a_cpu_out_of_bounds_is_refused(message: pb.Cpu) -> None:
    with pytest.raises(BadMessageError):
        convert.cpu(message)


def test_texts_at_their_bounds_are_taken() -> None:
    assert len(convert.cpu(pb.Cpu(firmware_id="x" * 256)).firmware_id) == 256
    assert len(convert.reason(pb.Reason(code="c", text="x" * 1024)).text) == 1024


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (_snapshot(pb.Cpu(number=1), pb.Cpu(number=1)), "one number"),
        (_snapshot(pb.Cpu(number=1, firmware_id="a"), pb.Cpu(number=2, firmware_id="a")), "one firmware identity"),
        (_snapshot(pb.Cpu(number=1, firmware_id="a\n"), pb.Cpu(number=2, firmware_id="a\\n")), "one firmware identity"),
        (pb.Snapshot(boot_id="b" * 65), "boot_id"),
        (pb.Snapshot(cpus=[pb.Cpu(number=n) for n in range(convert.MAX_CPUS + 1)]), "more than 65536"),
    ],
)
def test_a_snapshot_that_contradicts_itself_is_refused(message: pb.Snapshot, words: str) -> None:
    with pytest.raises(BadMessageError, match=words):
        convert.snapshot(message)


def test_cpus_without_identity_may_be_many() -> None:
    assert len(convert.snapshot(_snapshot(pb.Cpu(number=1), pb.Cpu(number=2))).cpus) == 2


@pytest.mark.parametrize("number", [65536, 2**28, 2**32 - 1])
def test_a_number_that_no_kernel_gives_a_cpu_is_refused_wherever_it_stands(number: int) -> None:
    wild = pb.Cpu(number=number, firmware_id="a")
    with pytest.raises(BadMessageError, match=f"the number {number}"):
        convert.cpu(wild)
    with pytest.raises(BadMessageError, match=f"the number {number}"):
        convert.snapshot(_snapshot(pb.Cpu(number=1), wild))
    with pytest.raises(BadMessageError, match=f"the number {number}"):
        convert.result(_result(observed=wild))
    assert convert.cpu(pb.Cpu(number=65535)).number == 65535


_OBSERVED = pb.Cpu(number=1, firmware_id="a", online=True)


def _result(
    status: Any = pb.CpuResult.STATUS_DONE,
    observed: pb.Cpu | None = _OBSERVED,
    firmware_id: str = "a",
    seconds: float = 0.1,
) -> pb.CpuResult:
    return pb.CpuResult(firmware_id=firmware_id, status=status, observed=observed, seconds=seconds)


@pytest.mark.parametrize(
    "message",
    [
        _result(status=pb.CpuResult.STATUS_UNSPECIFIED),
        _result(status=77),
        _result(firmware_id="b"),
        _result(seconds=-1),
        _result(seconds=math.nan),
        _result(seconds=math.inf),
        _result(observed=None),
        _result(observed=None, status=pb.CpuResult.STATUS_ALREADY),
        _result(status=pb.CpuResult.STATUS_ABSENT),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(message: pb.CpuResult) -> None:
    convert.result(_result())
    with pytest.raises(BadMessageError):
        convert.result(message)


def test_an_absent_cpu_is_not_observed() -> None:
    assert convert.result(_result(status=pb.CpuResult.STATUS_ABSENT, observed=None)).observed is None


@pytest.mark.parametrize(
    "hello",
    [
        pb.HelloResponse(agent_version="1" * 65),
        pb.HelloResponse(capabilities=["c"] * 65),
        pb.HelloResponse(environment=pb.Environment(auto_online_rules=["r"] * 65)),
        pb.HelloResponse(environment=pb.Environment(possible="0," * 1000)),
        pb.HelloResponse(environment=pb.Environment(kernel_arguments=["a"] * 65)),
        pb.HelloResponse(environment=pb.Environment(kernel_arguments=["a" * 1025])),
        pb.HelloResponse(environment=pb.Environment(unwritable=["a"] * 65)),
        pb.HelloResponse(environment=pb.Environment(unhandled_gpes=[2] * 65)),
    ],
)
def test_a_hello_out_of_bounds_is_refused(hello: pb.HelloResponse) -> None:
    with pytest.raises(BadMessageError):
        convert.agent_info(hello, 1)
