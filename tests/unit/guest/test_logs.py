# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
from vcpu_guest import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    logs.configure("info", "text")


def test_a_line_for_the_journal_begins_with_its_priority(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    logs.configure("info", "text")
    logs.warning("something", cpu=3, text="two words", evil="a\n<0>b")
    assert capsys.readouterr().err == "<4>something cpu=3 text='two words' evil='a\\n<0>b'\n"


def test_a_line_elsewhere_begins_with_its_level(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    logs.configure("info", "text")
    logs.error("broken")
    assert capsys.readouterr().err == "error: broken\n"


def test_less_severe_lines_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "text")
    logs.debug("a")
    logs.info("b")
    logs.warning("c")
    assert capsys.readouterr().err.endswith("c\n")
    logs.configure("error", "text")
    logs.warning("d")
    assert capsys.readouterr().err == ""


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", "json")
    logs.debug("event", cpu=3)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["cpu"]) == ("event", "debug", 3)
    assert line["timestamp"]


@pytest.mark.parametrize("error", [BrokenPipeError("nobody reads"), ValueError("it is closed")])
def test_where_nobody_reads_what_is_said_the_work_goes_on(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    tried = []

    class Gone:
        def write(self, text: str) -> None:
            tried.append(text)
            raise error

        def flush(self) -> None:
            raise error

    monkeypatch.setattr(sys, "stderr", Gone())
    logs.configure("info", "text")
    logs.warning("something")
    assert tried


def test_what_comes_about_again_and_again_is_said_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    now = 1e6
    seldom = logs.Seldom("again", clock=lambda: now)
    logs.configure("info", "text")
    for number in range(1, 100_001):
        seldom.warning(number=number)
    said = [line.split()[2] for line in capsys.readouterr().err.splitlines()]
    assert said == ["number=1", "number=10", "number=100", "number=1000", "number=10000"]
    now += 3599.0
    seldom.warning()
    assert capsys.readouterr().err == ""
    now += 3600.0
    seldom.warning(number=1)
    assert capsys.readouterr().err == "warning: again number=1\n"
