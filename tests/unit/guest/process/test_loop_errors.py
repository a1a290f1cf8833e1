# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from kit.until import DEADLINE, until
from vcpu_guest import logs
from vcpu_guest.process.loop_errors import LoopErrors


@pytest.fixture(autouse=True)
def _this_tests_stderr() -> Iterator[None]:
    logs.configure("info", "text")
    yield
    logs.configure("info", "text")


async def test_a_callback_that_goes_wrong_again_and_again_ends_the_agent_after_a_few_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    loop = asyncio.get_running_loop()
    loop_errors = LoopErrors(loop)
    reading, writing = os.pipe()
    os.write(writing, b"x")

    def reads_nothing() -> None:
        raise RuntimeError("not foreseen")

    loop.add_reader(reading, reads_nothing)
    async with asyncio.timeout(DEADLINE):
        words = await loop_errors.too_many
    loop.remove_reader(reading)
    os.close(reading)
    os.close(writing)
    assert "RuntimeError('not foreseen')" in words
    assert "test_loop_errors.py" in words
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: an unexpected error in the agent ") for line in lines)


async def test_one_mistake_is_a_line_and_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    loop = asyncio.get_running_loop()
    loop_errors = LoopErrors(loop)
    for problem in ({"message": "something", "exception": ValueError("a")}, {"message": "something"}):
        loop.call_exception_handler(problem)
    await until(lambda: True)
    assert not loop_errors.too_many.done()
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("in the agent ")[2] for line in lines] == ["error=ValueError('a')", "error=something"]
