# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from kit.sim.views import vm
from vcpu_host.cli import progress as module
from vcpu_host.cli.progress import Progress
from vcpu_host.core.operation import events as ev
from vcpu_host.core.operation.limits import Limits
from vcpu_host.core.operation.machine import Machine
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin, Reason


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


def _machine() -> Machine:
    view = vm(3, {0})
    return Machine(
        plan(view, Request(Operation.PLUG, 2)),
        view.platform,
        Limits(),
        session="s",
        now=0.0,
        identities=view.identities,
    )


@pytest.mark.parametrize(("verbosity", "events"), [(0, []), (1, ["DoPlug"]), (2, ["DoPlug", "state"])])
def test_the_log_says_as_much_as_was_asked_for(verbosity: int, events: list[str]) -> None:
    log = _Log()
    with Progress(log, verbosity) as progress:
        progress(ev.DoPlug(1), _machine())
        progress(ev.Tick(), _machine())
    assert [event for _, event, _ in log.lines] == events


def test_without_a_log_the_machines_state_is_not_put_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _machine()
    monkeypatch.setattr(Machine, "dump", lambda self: pytest.fail("nobody reads it"))
    for verbosity in (0, 1):
        with Progress(_Log(), verbosity) as progress:
            progress(ev.DoPlug(1), machine)


def test_the_guests_words_come_escaped_into_the_log() -> None:
    log = _Log()
    with Progress(log, 1) as progress:
        progress(ev.DoSetOnline(1, ("acpi:\x1b[2J",), online=True, wait=True, brief=True), _machine())
    assert "\x1b" not in str(log.lines[0][2]["firmware_ids"])


def test_a_terminal_shows_what_is_awaited_after_a_moment_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(module, "_MOMENT", -1.0)
    with Progress(_Log(), 0) as progress:
        progress(ev.Tick(), _machine())
    assert "0/2 slots  slot 1: not begun" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize("terminal", [io.StringIO(), _Terminal()], ids=["a file", "a dumb terminal"])
def test_no_line_is_drawn_where_it_could_not_be_taken_back(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(module, "_MOMENT", -1.0)
    with Progress(_Log(), 0) as progress:
        progress(ev.Tick(), _machine())
    assert terminal.getvalue() == ""


_LONG = Reason("agent-frozen", Origin.AGENT, "the guest " + "does not answer " * 10, "wait")
_SHORT = Reason("no-answer", Origin.AGENT, "nobody answers")


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_a_reason_to_wait_that_no_line_holds_is_said_once_and_whole(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", kind)
    with Progress(_Log(), 0) as progress:
        for left in (30.0, 29.0, 28.0):
            progress.waits(_LONG, left)
    assert terminal.getvalue().count(_LONG.text) == 1
    assert "…" not in terminal.getvalue()


def test_a_reason_to_wait_that_a_line_holds_is_redrawn_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress(_Log(), 0) as progress:
        progress.waits(_SHORT, 30.0)
        progress.waits(_SHORT, 29.0)
    assert terminal.getvalue().count("nobody answers") == 2
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_quiet_is_quiet_about_waiting_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (_Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        with Progress(_Log(), 0, quiet=True) as progress:
            progress.waits(_SHORT, 30.0)
            progress.waits(_LONG, 30.0)
        assert terminal.getvalue() == ""
