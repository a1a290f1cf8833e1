# SPDX-License-Identifier: Apache-2.0
"""The lab's shell, against guests' ends that are slow, deaf at first, or dead."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from kit.lab import shell as shell_module
from kit.lab.errors import WaitTimeoutError
from kit.lab.shell import Shell
from kit.until import DEADLINE

#: Answers to the requests that have come so far, by their tokens.
Guest = Callable[[list[str]], list[str]]


@pytest.fixture
def shell_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Guest], Shell]]:
    """Makes a shell whose guest's end answers as the function says: it gets all tokens at each new request."""
    monkeypatch.setattr(shell_module, "TRY", 0.01)
    monkeypatch.setattr(shell_module, "LONGEST_TRY", 0.02)
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("shell.sock")
        listener.listen()
        made: list[Shell] = []

        def make(guest: Guest) -> Shell:
            made.append(Shell(Path("shell.sock")))
            peer, _ = listener.accept()
            threading.Thread(target=_answer, args=(peer, guest)).start()
            return made[-1]

        yield make
        for one in made:
            one.close()


def _answer(peer: socket.socket, guest: Guest) -> None:
    tokens: list[str] = []
    with peer, peer.makefile("r") as lines, suppress(OSError):
        for line in lines:
            if not line.endswith("\n"):
                return  # the shell was closed in the middle of it
            tokens.append(line.split()[1])
            peer.sendall("".join(f"lab:{token}:0:0\n" for token in guest(tokens)).encode())


def test_a_guest_that_is_always_three_questions_behind_is_there(shell_of: Callable[[Guest], Shell]) -> None:
    shell_of(lambda tokens: tokens[-4:-3]).wait(DEADLINE)


def test_what_a_guest_did_not_hear_while_it_booted_is_asked_again(shell_of: Callable[[Guest], Shell]) -> None:
    shell_of(lambda tokens: tokens[-1:] if len(tokens) > 5 else []).wait(DEADLINE)


def test_a_late_answer_to_a_question_is_not_taken_for_that_to_a_command(shell_of: Callable[[Guest], Shell]) -> None:
    def guest(tokens: list[str]) -> list[str]:
        # the second question is answered at once, and the first one only when a command comes, as one that failed
        return tokens[1:] if len(tokens) < 3 else [f"{tokens[0]}:1:0\nlab:{tokens[-1]}"]

    late = shell_of(guest)
    late.wait(DEADLINE)
    assert late.run("true", timeout=1, grace=DEADLINE) == ""


def test_a_guest_that_says_nothing_is_not_waited_for_without_end(shell_of: Callable[[Guest], Shell]) -> None:
    silent = shell_of(lambda _tokens: [])
    with pytest.raises(WaitTimeoutError):
        silent.wait(0.1)
