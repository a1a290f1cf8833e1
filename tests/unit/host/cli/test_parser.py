# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Iterator

import pytest
from kit.until import DEADLINE
from vcpu_host.cli.operate import request_of
from vcpu_host.cli.parser import build_parser
from vcpu_host.cli.target import target_of
from vcpu_host.cli.usage import CommandLineError, read
from vcpu_host.core.planning.placement import Placement
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.errors import UsageError
from vcpu_host.local.target import Target

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
    return read(build_parser(), line.split())


def _refused(*words: str) -> CommandLineError:
    """Why the words are no command; it says how they would be one, and only what is needed was built to say so."""
    with pytest.raises(CommandLineError) as error:
        read(build_parser(), words)
    with pytest.raises(CommandLineError) as quick:
        read(build_parser(words), words)
    assert (str(quick.value), quick.value.hint) == (str(error.value), error.value.hint)
    assert "vcpuctl" in error.value.hint
    return error.value


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "options",
    ["--qmp q", "--qmp q --agent a", "--vm web1", "-o json", "--timeout 2.5", "-vv", "-q", "--log-format json"],
)
def test_common_options_may_stand_before_and_behind_each_command(command: str, options: str) -> None:
    before, behind = vars(_parse(f"{options} {command}")), vars(_parse(f"{command} {options}"))
    assert before == behind
    assert before != vars(_parse(command))


def test_an_option_behind_the_command_overrides_and_leaves_the_others() -> None:
    args = _parse("--qmp q -o json --timeout 5 list --timeout 7")
    assert (args.qmp, args.output, args.timeout) == ("q", "json", 7.0)


def _exclusive() -> Iterator[tuple[str, str]]:
    """Every two options before the command that exclude each other, as words."""
    for group in build_parser()._mutually_exclusive_groups:
        words = [action.option_strings[-1] + ("" if action.nargs == 0 else "=x") for action in group._group_actions]
        yield from itertools.permutations(words, 2)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("first", "second"), [*_exclusive()])
def test_options_exclude_each_other_wherever_they_stand(first: str, second: str, command: str) -> None:
    for line in (f"{first} {second} {command}", f"{first} {command} {second}", f"{command} {first} {second}"):
        with pytest.raises(CommandLineError, match="exclude each other: give one of them"):
            _parse(line)


def test_every_option_that_may_be_repeated_adds_up_on_both_sides() -> None:
    args = _parse("--vm a -v list --vm b -vv")
    assert (args.vm, args.verbose) == (["a", "b"], 3)


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "", "many", "1_000", "٣", "0x4", "+1", " 2"])
@pytest.mark.parametrize("where", ["plug -n", "unplug --count", "scale", "plan scale"])
def test_a_count_is_a_whole_number_of_at_least_one(where: str, count: str) -> None:
    assert "is not a number" in str(_refused(*where.split(), count)) or count.startswith("-")


def test_a_huge_count_is_a_number_like_others() -> None:
    assert _parse("plug -n 1000000000").count == 10**9


def test_a_count_of_more_digits_than_python_reads_is_a_usage_error() -> None:
    assert "is not a number" in str(_refused("plug", "-n", "9" * 5000))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("2.5", 2.5), (".5", 0.5), ("90s", 90), ("1.5s", 1.5), ("500ms", 0.5), ("2m", 120), ("24h", 86400)],
)
def test_a_timeout_is_in_seconds_or_has_its_unit(text: str, seconds: float) -> None:
    assert _parse(f"--timeout {text} list").timeout == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "nan",
        "inf",
        "86401",
        "25h",
        "soon",
        "1e400",
        "5 s",
        "5S",
        "5d",
        "1_0",
        "٣",
        "",
        "s",
        "0ms",
        "1.",
        "5ss",
    ],
)
def test_a_timeout_is_a_positive_time_of_at_most_a_day(text: str) -> None:
    assert "is not a time" in str(_refused(f"--timeout={text}", "list"))


def test_slots_are_named_in_one_go_or_one_by_one() -> None:
    assert _parse("plug --slot 1 vcpu-2 socket-id=3,core-id=0").slots == ["1", "vcpu-2", "socket-id=3,core-id=0"]
    assert _parse("unplug --slot 1 --slot 2 3 --atomic --slot 4").slots == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "frobnicate",
        "plug -n 2 --slot 1",
        "plug 2 --slot 1",
        "plug 2 -n 2",
        "plug 2 3",
        "plan unplug --slot 1 -- 2",
        "unplug --slot",
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
        "list --dry-run",
        "plan plug --dry-run",
        "watch --dry-run",
        "list -q -v",
        "watch extra",
        "plug --policy sideways",
        "scale 2 --node 1",
        "online 1 --policy spread",
    ],
)
def test_what_makes_no_sense_is_a_usage_error(line: str) -> None:
    assert str(_refused(*line.split()))


@pytest.mark.parametrize("command", ["plug", "unplug", "plan plug", "plan unplug"])
@pytest.mark.parametrize("options", ["", "--atomic", "-q", "-o json", "--policy pack"])
def test_a_bare_number_is_an_amount_before_and_behind_options(command: str, options: str) -> None:
    operation = command.rpartition(" ")[2]
    for line in (f"{command} 3 {options}", f"{command} {options} 3", f"{command} -n 3 {options}"):
        assert request_of(_parse(line), operation).count == 3


@pytest.mark.parametrize("command", ["plug", "unplug", "plan plug", "plan unplug"])
@pytest.mark.parametrize("word", ["vcpu-3", "cpu3", "socket=1"])
def test_a_slot_that_stands_alone_is_refused_with_how_it_is_named(command: str, word: str) -> None:
    error = _refused(*command.split(), word, "--atomic")
    assert str(error) == f"{word!r} is not a number of vCPUs"
    assert f"vcpuctl {command} --slot {word}" in error.hint


@pytest.mark.parametrize("command", ["online", "offline"])
def test_the_guests_side_alone_takes_slots_with_and_without_an_option(command: str) -> None:
    for line in (f"{command} 3 cpu4", f"{command} --slot 3 --slot cpu4", f"{command} 3 --slot cpu4"):
        assert request_of(_parse(line), command) == Request(Operation(command), None, ("3", "cpu4"))
    with pytest.raises(UsageError, match=f"vcpuctl {command} needs a slot"):
        request_of(_parse(command), command)


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
    assert request_of(args, args.planned) == Request(
        Operation.PLUG, 2, placement=Placement.SPREAD, node=3, strict_placement=True
    )


@pytest.mark.parametrize("node", ["-1", "one", "1.5", "٣", "9" * 20, ""])
def test_a_node_is_a_whole_number(node: str) -> None:
    assert "is not the number of a NUMA node" in str(_refused("plug", f"--node={node}"))


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
        target_of(_parse("list"))
    assert refusal.value.reason.code == "no-vm"
    assert "--qmp" in refusal.value.reason.hint


def test_sockets_named_on_the_command_line_are_taken_as_they_are() -> None:
    assert target_of(_parse("list --qmp /q --agent /a")) == Target("/q", "/a")
    assert target_of(_parse("list --qmp /q")) == Target("/q", None)


def test_the_grammar_is_read_without_the_heavy_libraries() -> None:
    code = (
        "import sys; from vcpu_host.cli.parser import build_parser; build_parser().format_help(); "
        "print([m for m in ('grpc', 'rich', 'structlog', 'qemu', 'google', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=DEADLINE)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["plug", "unplug", "scale 2", "online 1", "offline 1"])
def test_a_dry_run_is_asked_for_in_words(command: str) -> None:
    assert _parse(f"{command} --dry-run").dry_run is True
    assert _parse(command).dry_run is False


def test_scale_in_guest_is_a_request_of_its_own() -> None:
    assert request_of(_parse("scale 3 --in-guest"), "scale") == Request(Operation.SCALE, 3, in_guest=True)
    assert request_of(_parse("scale 3"), "scale") == Request(Operation.SCALE, 3)
