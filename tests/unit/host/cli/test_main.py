# SPDX-License-Identifier: Apache-2.0
"""What is said where the user waits no longer."""

from __future__ import annotations

import argparse
import json
import shlex

import pytest
from kit import documents
from vcpu_host.cli import commands, render
from vcpu_host.cli.exitcodes import Exit
from vcpu_host.cli.main import main
from vcpu_host.cli.parser import build_parser
from vcpu_host.errors import OutcomeLostError


@pytest.mark.parametrize(
    ("words", "may"),
    [
        ("list", False),
        ("doctor", False),
        ("export", False),
        ("plan plug 3", False),
        ("scale 3", True),
        ("scale 3 --dry-run", False),
        ("migrate check --to x", False),
        ("migrate prepare --to x", True),
        ("numa assign --policy pack", True),
        ("numa assign --policy pack --dry-run", False),
        ("channel", False),
        ("channel --apply", True),
        ("autoscale status", False),
        ("autoscale explain", False),
        ("autoscale history", False),
        ("autoscale on", True),
        ("autoscale off", True),
        ("apply x", True),
        ("apply x --dry-run", False),
        ("vms", False),
        ("log", False),
    ],
)
def test_only_what_cannot_have_changed_anything_is_said_to_have_changed_nothing(words: str, may: bool) -> None:
    assert commands.may_change(build_parser().parse_args(shlex.split(words))) is may


def test_ctrl_c_behind_the_answer_keeps_the_status_and_adds_no_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(args: argparse.Namespace) -> Exit:
        render.emit_json({"answer": True})
        return Exit.PARTIAL

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr("asyncio.runners._cancel_all_tasks", _interrupted)  # at the loop's end
    assert main(["-o", "json", "scale", "3"]) == Exit.PARTIAL
    assert json.loads(capsys.readouterr().out)["answer"] is True


def _interrupted(*of: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_before_the_answer_is_an_error_with_a_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(args: argparse.Namespace) -> Exit:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "run", run)
    for words, status in (("list", Exit.REFUSED), ("scale 3", Exit.UNKNOWN)):
        assert main(["-o", "json", *words.split()]) == status
        error = json.loads(capsys.readouterr().out)
        assert (error["error"]["code"], error["exit_status"]) == ("interrupted", status)


def test_ctrl_c_while_nobody_takes_the_answer_is_no_answer_that_was_given() -> None:
    with pytest.raises(OutcomeLostError) as lost, render.writing():
        raise KeyboardInterrupt
    assert lost.value.reason.code == "not-written"


# --- what nobody foresaw ----------------------------------------------------------------------------------------------


class _UnforeseenError(Exception):
    """A mistake in vcpuctl. Its text is a guest's."""


def _broken(*of: object) -> None:
    raise _UnforeseenError("\x1b[31m of a guest")


@pytest.mark.parametrize(
    ("line", "status", "unknown"),
    [("list", Exit.FAILED, False), ("scale 3", Exit.UNKNOWN, True), ("scale 3 --dry-run", Exit.FAILED, False)],
)
def test_a_fault_is_told_in_words_with_a_document_and_stderr_has_all_of_it(
    line: str, status: Exit, unknown: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(args: argparse.Namespace) -> Exit:
        _broken()
        return Exit.DONE

    monkeypatch.setattr(commands, "run", run)
    assert main(line.split()) == status
    told = capsys.readouterr()
    assert told.out == ""
    assert "Traceback" in told.err
    assert "in _broken" in told.err
    assert told.err.replace("\n", "").isprintable()
    *_, what, to_do = told.err.splitlines()
    assert what.startswith("vcpuctl: a fault of vcpuctl's own: _UnforeseenError(")
    assert ("it is not known how far the operation came" in what) is unknown
    assert "please report it" in to_do

    assert main(["-o", "json", *line.split()]) == status
    document = json.loads(capsys.readouterr().out)
    documents.check(document)
    assert (document["error"]["code"], document["exit_status"]) == ("fault", status)


def test_a_fault_while_the_words_are_read_has_its_document_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vcpu_host.cli.main.build_parser", _broken)
    assert main(["-o", "json", "scale", "3"]) == Exit.FAILED
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "fault"


def test_a_fault_behind_the_answer_keeps_the_status_and_adds_no_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(args: argparse.Namespace) -> Exit:
        render.emit_json({"answer": True})
        return Exit.PARTIAL

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr("asyncio.runners._cancel_all_tasks", _broken)  # at the loop's end
    assert main(["-o", "json", "scale", "3"]) == Exit.PARTIAL
    told = capsys.readouterr()
    assert json.loads(told.out)["answer"] is True
    assert "in _broken" in told.err
