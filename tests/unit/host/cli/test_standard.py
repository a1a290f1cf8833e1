# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import os
from contextlib import suppress

import pytest
from vcpu_host.cli import standard
from vcpu_host.cli.standard import Advice


@pytest.fixture
def pipe() -> tuple[int, int]:
    """For whoever closes both."""
    return os.pipe()


def test_what_is_said_is_written_in_its_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    advice = Advice(writing)
    for number in range(100):
        assert advice.write(b"%d\n" % number) == len(b"%d\n" % number)
    advice.settle(None)
    os.close(writing)
    with open(reading, "rb") as written:
        assert written.read() == b"".join(b"%d\n" % number for number in range(100))


def test_what_has_failed_once_is_never_written_to_again(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []

    def fails(number: int, data: bytes) -> int:
        tried.append(bytes(data))
        raise OSError(28, "No space left on device")

    for number in pipe:
        os.close(number)
    monkeypatch.setattr(os, "write", fails)
    advice = Advice(pipe[1])
    for _ in range(3):
        assert advice.write(b"word") == 4
        advice.settle(None)
    assert tried == [b"word"]


def test_what_nobody_reads_holds_up_nobody_and_is_bounded(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standard, "_UNREAD", 1 << 20)
    reading, writing = pipe
    advice = Advice(writing)
    for _ in range(100):
        advice.write(b"x" * (1 << 16))
    advice.settle(0)
    assert advice._size <= 1 << 20
    size = 0
    os.set_blocking(reading, False)
    advice.settle(0)
    while advice._waiting or advice._busy or size == 0:
        with suppress(BlockingIOError):
            size += len(os.read(reading, 1 << 20))
    assert size <= (1 << 20) + fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)  # what the pipe took made room for more
    for number in pipe:
        os.close(number)
