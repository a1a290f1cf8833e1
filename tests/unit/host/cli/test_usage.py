# SPDX-License-Identifier: Apache-2.0
"""What is said of words that make no command."""

from __future__ import annotations

import json

import pytest
from kit import documents
from vcpu_host.cli.main import main
from vcpu_host.cli.parser import build_parser
from vcpu_host.cli.usage import CommandLineError, read, wants_json


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


@pytest.mark.parametrize("line", ["frobnicate", "list --frobnicate", "help frobnicate"])
def test_a_word_that_is_near_to_none_is_not_guessed_at(line: str) -> None:
    assert "did you mean" not in _refused(*line.split()).hint


def test_an_option_of_the_command_that_stands_before_it_is_told_with_its_place() -> None:
    assert "vcpuctl plug --slot" in _refused("--slot", "3", "plug").hint


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
        ("--output=json", True),
        ("--output json x", True),
        ("-o json -o table", False),
        ("-o table", False),
        ("-o", False),
        ("--output", False),
        ("", False),
        ("json", False),
        ("--outputs json", False),
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
