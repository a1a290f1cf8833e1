# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
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
