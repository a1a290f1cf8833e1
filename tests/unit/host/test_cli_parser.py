# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import subprocess
import sys

import pytest
from vcpu_host.cli.connect import sockets
from vcpu_host.cli.operate import request_of
from vcpu_host.cli.parser import build_parser
from vcpu_host.core.placement import Placement
from vcpu_host.core.plan import Operation, Request
from vcpu_host.errors import UsageError

COMMANDS = [
    "list",
    "plug",
    "unplug",
    "scale 2",
    "plan plug",
    "online 1",
    "offline 1",
    "watch",
    "doctor",
    "agent-proxy --listen s",
]


def _parse(line: str) -> argparse.Namespace:
    return build_parser().parse_args(line.split())


def _refused(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        _parse(line)
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "options", ["--qmp q", "--qmp q --agent a", "--vm web1", "-o json", "--timeout 2.5", "-vv", "--log-format json"]
)
def test_common_options_may_stand_before_and_behind_each_command(command: str, options: str) -> None:
    before, behind = vars(_parse(f"{options} {command}")), vars(_parse(f"{command} {options}"))
    assert before == behind
    assert before != vars(_parse(command))


def test_an_option_behind_the_command_overrides_and_leaves_the_others() -> None:
    args = _parse("--qmp q -o json --timeout 5 list --timeout 7")
    assert (args.qmp, args.output, args.timeout) == ("q", "json", 7.0)


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "", "many", "1_000", "٣", "0x4", "+1", " 2"])
@pytest.mark.parametrize("where", ["plug -n", "unplug --count", "scale", "plan scale"])
def test_a_count_is_a_whole_number_of_at_least_one(where: str, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([*where.split(), count])
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_huge_count_is_a_number_like_others() -> None:
    assert _parse("plug -n 1000000000").count == 10**9


def test_a_count_of_more_digits_than_python_reads_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a number" in _refused("plug -n " + "9" * 5000, capsys)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "86401", "soon", "1e400"])
def test_a_timeout_is_a_positive_time_of_at_most_a_day(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a time" in _refused(f"--timeout={seconds} list", capsys)


def test_slots_are_named_by_one_option_with_all_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert _parse("plug --slot 1 vcpu-2 socket-id=3,core-id=0").slots == ["1", "vcpu-2", "socket-id=3,core-id=0"]
    assert "given twice" in _refused("plug --slot 1 --slot 2", capsys)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "frobnicate",
        "plug -n 2 --slot 1",
        "unplug --slot",
        "online",
        "offline",
        "scale",
        "scale 2 3",
        "plan",
        "plan list",
        "plan online 1",
        "agent-proxy",
        "--vm a --qmp b list",
        "list --vm a --qmp b",
        "list -o yaml",
        "list --atomic",
        "watch extra",
        "plug --policy sideways",
        "scale 2 --node 1",
        "online 1 --policy spread",
    ],
)
def test_what_makes_no_sense_is_a_usage_error(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "usage: vcpuctl" in _refused(line, capsys)


@pytest.mark.parametrize(
    ("line", "operation", "count", "selectors"),
    [
        ("plug", "plug", 1, ()),
        ("plug -n 3", "plug", 3, ()),
        ("plug --slot 4 5", "plug", None, ("4", "5")),
        ("unplug", "unplug", 1, ()),
        ("unplug --slot 7", "unplug", None, ("7",)),
        ("scale 6", "scale", 6, ()),
        ("online 1 2", "online", None, ("1", "2")),
        ("offline 3", "offline", None, ("3",)),
    ],
)
def test_arguments_make_the_request_that_they_state(
    line: str, operation: str, count: int | None, selectors: tuple[str, ...]
) -> None:
    args = _parse(line)
    assert request_of(args, args.command) == Request(Operation(operation), count, selectors)


def test_plan_makes_the_request_of_the_operation_that_it_plans() -> None:
    args = _parse("plan unplug -n 2")
    assert request_of(args, args.planned) == Request(Operation.UNPLUG, 2)


def test_every_policy_can_be_asked_for_by_its_name() -> None:
    for placement in Placement:
        for command in ("plug", "unplug", "scale 2"):
            args = _parse(f"{command} --policy {placement}")
            assert request_of(args, args.command).placement is placement
    args = _parse("plan plug -n 2 --policy spread --node 3")
    assert request_of(args, args.planned) == Request(Operation.PLUG, 2, placement=Placement.SPREAD, node=3)


@pytest.mark.parametrize("node", ["-1", "one", "1.5", "٣", "9" * 20, ""])
def test_a_node_is_a_whole_number(node: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not the number of a NUMA node" in _refused(f"plug --node={node}", capsys)


@pytest.mark.parametrize("line", ["plug --slot 1 --node 0", "unplug --slot 1 --policy pack"])
def test_slots_are_named_or_chosen_not_both(line: str) -> None:
    args = _parse(line)
    with pytest.raises(UsageError, match="not both"):
        request_of(args, args.command)


@pytest.mark.parametrize("command", ["plug", "unplug", "scale 2"])
def test_atomic_is_asked_for_in_words(command: str) -> None:
    assert _parse(f"{command} --atomic").atomic is True
    assert _parse(command).atomic is False


def test_a_command_without_a_vm_is_a_usage_error_that_says_how_to_name_one() -> None:
    with pytest.raises(UsageError) as refusal:
        sockets(_parse("list"))
    assert refusal.value.reason.code == "no-vm"
    assert "--qmp" in refusal.value.reason.hint


def test_sockets_named_on_the_command_line_are_taken_as_they_are() -> None:
    where = sockets(_parse("list --qmp /q --agent /a"))
    assert (where.qmp, where.agent) == ("/q", "/a")
    assert sockets(_parse("list --qmp /q")).agent is None


def test_the_grammar_is_read_without_the_heavy_libraries() -> None:
    code = (
        "import sys; from vcpu_host.cli.parser import build_parser; build_parser().format_help(); "
        "print([m for m in ('grpc', 'rich', 'structlog', 'qemu', 'google', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


def test_help_tells_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        _parse("--help")
    assert end.value.code == 0
    words = capsys.readouterr().out
    for status in range(7):
        assert f"{status} " in words


def test_scale_in_guest_is_a_request_of_its_own() -> None:
    assert request_of(_parse("scale 3 --in-guest"), "scale") == Request(Operation.SCALE, 3, in_guest=True)
    assert request_of(_parse("scale 3"), "scale") == Request(Operation.SCALE, 3)
