# SPDX-License-Identifier: Apache-2.0
"""What is said of words that make no command."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import pytest
from kit import documents
from vcpu_host.cli.main import main
from vcpu_host.cli.parser import build_parser
from vcpu_host.cli.usage import CommandLineError, commands_of, read, wants_json


def _every_option() -> Iterator[str]:
    """Every option of the grammar."""
    parsers: list[argparse.ArgumentParser] = [build_parser()]
    for parser in parsers:
        parsers += commands_of(parser).values()
        yield from (name for action in parser._actions for name in action.option_strings)


def _refused(*words: str) -> CommandLineError:
    """Why the words are no command; it says how they would be one, and only what is needed was built to say so."""
    with pytest.raises(CommandLineError) as error:
        read(build_parser(), words)
    with pytest.raises(CommandLineError) as quick:
        read(build_parser(words), words)
    assert (str(quick.value), quick.value.hint) == (str(error.value), error.value.hint)
    assert "vcpuctl" in error.value.hint
    return error.value


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("pulg", "plug"),
        ("lis", "list"),
        ("plan unplgu", "unplug"),
        ("help sclae", "scale"),
        ("plug --slots 1", "--slot"),
        ("plug --cou 3", "--count"),
        ("--timout 5 list", "--timeout"),
        ("numa assign --polcy pack", "--policy"),
        ("-o jsno list", "json"),
        ("plug --policy spred", "spread"),
    ],
)
def test_a_word_that_is_misspelt_is_told_with_what_may_have_been_meant(line: str, meant: str) -> None:
    assert f"did you mean {meant}? " in _refused(*line.split()).hint


@pytest.mark.parametrize(
    "line",
    [
        *("frobnicate", "list --frobnicate", "help frobnicate"),
        *("list --wide", "watch --wide", "plug --force", "unplug --force", "export --force", "list --yes"),
    ],
)
def test_a_word_that_is_near_to_none_is_not_guessed_at(line: str) -> None:
    assert "did you mean" not in _refused(*line.split()).hint


def test_an_option_of_the_command_that_stands_before_it_is_told_with_its_place() -> None:
    assert "vcpuctl plug --slot" in _refused("--slot", "3", "plug").hint


@pytest.mark.parametrize(
    ("line", "text", "hint"),
    [
        ("plug -- 3 --dry-run", "vcpuctl plug does not take --dry-run behind --", "options stand before --"),
        ("list -- --dry-run", "vcpuctl list does not take --dry-run behind --", "options stand before --"),
        ("vms --vm x", "vcpuctl vms does not take --vm", "it takes no VM: leave --vm out; see vcpuctl vms --help"),
        ("serve --vm=x", "vcpuctl serve does not take --vm", "it takes no VM: leave --vm out; see vcpuctl serve"),
        ("apply --agent a f", "vcpuctl apply does not take --agent", "it takes no VM: leave --agent out"),
        ("scale --count 3", "vcpuctl scale does not take --count", "the number stands alone: vcpuctl scale 8; see"),
        ("scale 3 -n 3", "vcpuctl scale does not take -n", "the number stands alone: vcpuctl scale 8; see"),
        ("plan plug --dry-run", "vcpuctl plan plug does not take --dry-run", "a plan changes nothing: leave --dry-run"),
        ("list --count 3", "vcpuctl list does not take --count", "--count is for plug, unplug, plan plug and others"),
        ("doctor --form qmp", "vcpuctl doctor does not take --form", "--form is for export; see vcpuctl doctor --help"),
        ("list --version", "vcpuctl list does not take --version", "stands before the command: vcpuctl --version"),
        ("numa --output=json assign --policy pack", "does not take --output", "vcpuctl numa assign --output ..."),
        ("numa -o json assign --policy pack", "vcpuctl numa does not take -o", "vcpuctl numa assign -o ..."),
        ("migrate -q check --from x", "does not take -q", "stands behind the command: vcpuctl migrate check -q ..."),
        ("list --wide", "vcpuctl list does not take --wide", "-o wide shows every column; see vcpuctl list --help"),
        ("--json list", "vcpuctl list does not take --json", "-o json writes a document; see vcpuctl list --help"),
        ("list -x", "vcpuctl list does not take -x", "see vcpuctl list --help"),
    ],
)
def test_an_option_that_is_known_elsewhere_is_told_with_where_it_belongs_and_nothing_is_guessed(
    line: str, text: str, hint: str
) -> None:
    error = _refused(*line.split())
    assert text in str(error)
    assert hint in error.hint
    assert "did you mean" not in error.hint


@pytest.mark.parametrize(
    ("line", "command"), [("-- list", "list"), ("-q -- plug 3", "plug"), ("plan -- plug 3", "plan")]
)
def test_a_command_may_stand_behind_the_end_of_options(line: str, command: str) -> None:
    assert read(build_parser(), line.split()).command == command


def test_what_stands_behind_the_end_of_options_and_is_no_command_is_told_by_its_name() -> None:
    assert "there is no command 'frobnicate' in vcpuctl" in str(_refused("--", "frobnicate"))


@pytest.mark.parametrize("command", ["list", "scale", "vms", "numa assign"])
def test_no_hint_proposes_the_word_itself_or_a_short_option_for_a_long_one(command: str) -> None:
    parser = build_parser()
    for option in {*_every_option()} - {"-h", "--help"}:
        try:
            read(parser, [*command.split(), f"{option}=1"])
        except CommandLineError as error:
            meant = error.hint.partition("did you mean ")[2].partition("?")[0]
            assert meant != option
            assert not meant or meant.startswith("--") == option.startswith("--")
        except SystemExit:
            assert option in ("-V", "--version")


@pytest.mark.parametrize(
    ("line", "text", "hint"),
    [
        ("plug --timeout -1s", "--timeout: '-1s' is not a time: 30, 30s", "see vcpuctl plug --help"),
        ("--timeout -1s plug", "--timeout: '-1s' is not a time: 30, 30s", "see vcpuctl --help"),
        ("-o -json list", "and '-json' is none of them", "see vcpuctl --help"),
        ("plug -n -2x", "'-2x' is not a number", "see vcpuctl plug --help"),
        ("plug --slot -x", "--slot needs a value, and '-x' may be an option", "given as --slot=-x"),
        ("--qmp -sock list", "--qmp needs a value, and '-sock' may be an option", "given as --qmp=-sock"),
        ("--qmp --vm x list", "--qmp needs a value", "for example: vcpuctl --vm vm1 list"),
        ("--qmp -v list", "--qmp needs a value", "for example: vcpuctl --vm vm1 list"),
        ("plug --slot -v", "--slot needs a value, or more than one", "for example: vcpuctl --vm vm1 plug 3"),
    ],
)
def test_a_value_that_begins_with_a_dash_is_not_told_as_missing(line: str, text: str, hint: str) -> None:
    error = _refused(*line.split())
    assert text in str(error)
    assert hint in error.hint


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("scale", "vcpuctl scale needs N"),
        ("migrate check", "vcpuctl migrate check needs --to or --from"),
        ("", "vcpuctl needs a command"),
        ("plan", "vcpuctl plan needs OPERATION"),
        ("--qmp", "--qmp needs a value"),
        ("plug --slot", "--slot needs a value, or more than one"),
        ("plug --atomic=yes", "--atomic takes no value, and 'yes' is one"),
        ("--vm a --qmp b list", "--qmp and --vm exclude each other: give one of them"),
        ("plug 2 --slot 1", "--slot and VCPUS exclude each other: give one of them"),
        ("-o yaml list", "-o/--output is one of table, wide, json, and 'yaml' is none of them"),
        ("--timeout soon list", "--timeout: 'soon' is not a time: 30, 30s, 500ms, 2m or 1h, above 0 and at most a day"),
    ],
)
def test_argparses_messages_are_told_in_plain_words(line: str, text: str) -> None:
    assert str(_refused(*line.split())) == text


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("--time 5 list", "--time"),
        ("list --time 5", "--time"),
        ("plug --cou 3", "--cou"),
        ("plan plug --atom", "--atom"),
    ],
)
def test_the_beginning_of_an_option_is_none_and_is_what_is_complained_of(line: str, option: str) -> None:
    assert f"does not take {option}" in str(_refused(*line.split()))


def test_what_is_left_over_is_told_with_the_help_of_its_own_command() -> None:
    error = _refused("-o", "json", "numa", "assign", "--policy", "pack", "now")
    assert str(error) == "vcpuctl numa assign does not take now"
    assert error.hint == "see vcpuctl numa assign --help"


@pytest.mark.parametrize(
    ("line", "json"),
    [
        ("-o json frob", True),
        ("frob -o json", True),
        ("-ojson", True),
        ("-qo json", True),
        ("-vvojson", True),
        ("-o=json", True),
        ("-qo=json", True),
        ("log -fojson", True),
        ("-o=table", False),
        ("-o= json", False),
        ("--output= json", False),
        ("--output=json", True),
        ("--output json x", True),
        ("-o json -o table", False),
        ("-o table", False),
        ("-o", False),
        ("--output", False),
        ("", False),
        ("json", False),
        ("--outputs json", False),
        ("-o json --domain -foo list", True),
        ("-o table --domain -foo list", False),
    ],
)
def test_words_that_are_no_command_say_whether_a_document_is_wanted(line: str, json: bool) -> None:
    assert wants_json(line.split()) is json


@pytest.mark.parametrize("line", ["", "frob", "plug cpu3", "list --vm a --qmp b", "plug -n 0", "list"])
def test_a_usage_error_is_a_document_where_one_is_wanted(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-o", "json", *line.split()]) == 2
    said = capsys.readouterr()
    document = json.loads(said.out)
    documents.check(document)
    assert document["exit_status"] == 2
    assert {"code", "who", "text", "hint"} <= set(document["error"])
    assert said.err == f"vcpuctl: {document['error']['text']}\n         {document['error']['hint']}\n"
    assert main(line.split()) == 2
    assert capsys.readouterr().out == ""


def test_whatever_flag_stands_before_o_in_one_word_a_document_is_wanted() -> None:
    """Or else a usage error would print none."""
    parsers: list[argparse.ArgumentParser] = [build_parser()]
    flags = set()
    for parser in parsers:
        parsers += commands_of(parser).values()
        flags |= {name for action in parser._actions if action.nargs == 0 for name in action.option_strings}
    short = {name for name in flags if not name.startswith("--")} - {"-h", "-V"}  # which end the command line
    assert short >= {"-v", "-q", "-f"}
    assert all(wants_json([f"{name}ojson"]) for name in short)
