# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from vcpu_host.cli.progress import Progress
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.documents import of_reason
from vcpu_host.sharing.wire import Message


class _Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **values: Any) -> None:
        self.lines.append(("info", event, values))

    def debug(self, event: str, **values: Any) -> None:
        self.lines.append(("debug", event, values))


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_step_goes_into_the_log_and_the_state_behind_it_where_details_are_wanted() -> None:
    log = _Log()
    with Progress(log, 2) as progress:
        progress.hear({"log": {"event": "DoPlug", "slot": 1}})
        progress.hear({"log": {"event": "state", "jobs": []}})
    assert log.lines == [("info", "DoPlug", {"slot": 1}), ("debug", "state", {"jobs": []})]


def test_it_is_said_for_whom_is_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(_Log(), 0) as progress:
        progress.hear({"holder": "17 vcpuctl plug 1"})
        progress.hear({"holder": "17 vcpuctl plug 1"})
    assert terminal.getvalue() == "vcpuctl: waiting for another program that has this VM: 17 vcpuctl plug 1\n"


def test_a_terminal_shows_what_is_awaited_after_a_moment_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress(_Log(), 0) as progress:
        progress.hear({"progress": [0, 2, "slot 1: not begun"]})
    assert "0/2 slots  slot 1: not begun" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize("terminal", [io.StringIO(), _Terminal()], ids=["a file", "a dumb terminal"])
def test_no_line_is_drawn_where_it_could_not_be_taken_back(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    with Progress(_Log(), 0) as progress:
        progress.hear({"progress": [0, 2, "slot 1: not begun"]})
    assert terminal.getvalue() == ""


_LONG = Reason("agent-frozen", Origin.AGENT, "the guest " + "does not answer " * 10, "wait")
_SHORT = Reason("no-answer", Origin.AGENT, "nobody answers")


def _waits(reason: Reason, seconds: float) -> Message:
    return {"waits": {"reason": of_reason(reason), "seconds": seconds}}


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_a_reason_to_wait_that_no_line_holds_is_said_once_and_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", kind)
    with Progress(_Log(), 0) as progress:
        for left in (30.0, 29.0, 28.0):
            progress.hear(_waits(_LONG, left))
    assert terminal.getvalue().count(_LONG.text) == 1
    assert "…" not in terminal.getvalue()


def test_a_reason_to_wait_that_a_line_holds_is_redrawn_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress(_Log(), 0) as progress:
        progress.hear(_waits(_SHORT, 30.0))
        progress.hear(_waits(_SHORT, 29.0))
    assert terminal.getvalue().count("nobody answers") == 2
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_quiet_is_quiet_about_waiting_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (_Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        with Progress(_Log(), 0, quiet=True) as progress:
            progress.hear(_waits(_SHORT, 30.0))
            progress.hear(_waits(_LONG, 30.0))
        assert terminal.getvalue() == ""
