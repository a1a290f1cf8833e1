# SPDX-License-Identifier: Apache-2.0
"""What vcpuctl says of itself: the help of each command, and the version."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest
from vcpu_host import __version__
from vcpu_host.cli.parser import build_parser
from vcpu_host.cli.usage import CommandLineError, read
from vcpu_host.core.operation.limits import PATIENCE_PER_VCPU, Limits


def _printed(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed of a command that does nothing else."""
    with pytest.raises(SystemExit) as end:
        read(build_parser(), line.split())
    assert end.value.code in (0, None)
    return capsys.readouterr().out


def test_help_tells_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    words = _printed("--help", capsys)
    for status in range(7):
        assert f"{status} " in words


def _every_command(parser: argparse.ArgumentParser) -> Iterator[list[str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield [name]
                yield from ([name, *path] for path in _every_command(below))


PATHS = list(_every_command(build_parser()))


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_of_a_command_is_the_same_either_way_and_fits_a_terminal(
    path: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = _printed(" ".join(["help", *path]), capsys)
    assert words.startswith(f"usage: vcpuctl {' '.join(path)} [-h]")
    assert words == _printed(" ".join([*path, "--help"]), capsys)
    assert [line for line in words.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_example_is_a_command_and_the_common_options_are_told_once(
    path: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = _printed(" ".join(["help", *path]), capsys)
    assert "--log-format" not in words
    has_commands_of_its_own = any(other[:-1] == path for other in PATHS)
    if has_commands_of_its_own or path == ["help"]:
        return
    assert "see vcpuctl --help" in words
    examples = [line.split() for line in words.partition("examples:\n")[2].splitlines() if line.startswith("  ")]
    assert examples
    for example in examples:
        shell = example.index(next((word for word in example if word.startswith(">")), example[-1]))
        args = read(build_parser(), example[1 : shell if example[shell].startswith(">") else None])
        assert args.command == path[0]


def test_help_without_a_command_is_that_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    words = _printed("help", capsys)
    assert words == _printed("--help", capsys) == _printed("-h", capsys)
    assert all(f"    {path[0]} " in words for path in PATHS)
    with pytest.raises(CommandLineError, match="no command 'fly'"):
        read(build_parser(), ["help", "plan", "fly"])


@pytest.mark.parametrize("command", ["plug", "scale"])
def test_help_says_what_becomes_of_cpus_that_the_guests_administrator_took_offline(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = " ".join(_printed(f"help {command}", capsys).split())
    assert "the guest's administrator took offline" in words
    assert "brought online" in words


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_is_told(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _printed(option, capsys) == f"vcpuctl {__version__}\n"


def test_help_says_how_long_an_operation_may_take_if_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    told = f"default: {Limits().timeout:g} s, and {PATIENCE_PER_VCPU:g} s for each vCPU"
    assert told in " ".join(_printed("--help", capsys).split())
