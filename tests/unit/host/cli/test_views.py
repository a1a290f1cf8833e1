# SPDX-License-Identifier: Apache-2.0
"""Views for a reader that is slower than the VM."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from typing import Any

import pytest
from kit.until import DEADLINE, until
from vcpu_host.cli import standard, views
from vcpu_host.cli.views import Views
from vcpu_host.errors import OutcomeLostError


class _Stdout(io.StringIO):
    """Takes the first view when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.tried, self.takes = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.tried.set()
        assert self.takes.wait(DEADLINE)
        return super().write(text)

    @property
    def numbers(self) -> list[Any]:
        return [json.loads(line)["number"] for line in self.getvalue().splitlines()]


@pytest.fixture
def stdout(monkeypatch: pytest.MonkeyPatch) -> _Stdout:
    stdout = _Stdout()
    monkeypatch.setattr(standard, "own_stdout", lambda: stdout)
    return stdout


async def test_of_more_views_than_are_kept_the_newest_are_shown(stdout: _Stdout) -> None:
    shown = Views("json", live=False)
    shown.show({"number": -1})
    await until(stdout.tried.is_set)
    for number in range(100):
        shown.show({"number": number})
    shown.finish()
    stdout.takes.set()
    await asyncio.wait_for(shown.ended, DEADLINE)
    assert stdout.numbers == [-1, *range(100 - views._KEPT, 100)]


@pytest.mark.parametrize(("error", "raised"), [(OSError(28, "full"), OutcomeLostError), (BrokenPipeError(), OSError)])
async def test_what_cannot_be_shown_is_an_error_of_the_end(
    monkeypatch: pytest.MonkeyPatch, error: OSError, raised: type[Exception]
) -> None:
    class Fails(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    monkeypatch.setattr(standard, "own_stdout", Fails)
    shown = Views("json", live=False)
    shown.show({"number": 0})
    with pytest.raises(raised):
        await asyncio.wait_for(shown.ended, DEADLINE)
