# SPDX-License-Identifier: Apache-2.0
"""A write that the fake kernel holds stands in nobody's way but its own CPU's readers'."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

from kit.fakes.sysfs import FakeKernel
from kit.until import DEADLINE

SOON = DEADLINE


class Started(threading.Thread):
    """A call in a thread of its own; ``result`` at its end, within SOON."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._result: object = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._call()
        except OSError as error:
            self._result = error.errno

    def result(self) -> object:
        self.join(SOON)
        assert not self.is_alive(), "it still waits"
        return self._result


def held(kernel: FakeKernel) -> tuple[Path, Started]:
    """A kernel with a CPU of which the write "online" is held, as its file and its writer."""
    number = kernel.add(1)
    file = kernel.cpu_dir / f"cpu{number}/online"
    kernel.released.clear()
    writer = Started(lambda: kernel.write(str(file), b"1"))
    assert kernel.holding.wait(SOON)
    return file, writer


def test_a_cpu_that_goes_while_its_write_is_held_waits_for_nobody_and_ends_the_write(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path / "sys")
    file, writer = held(kernel)
    reader = Started(file.read_text)
    Started(lambda: kernel.remove(1)).result()
    assert not file.exists()
    reader.result()
    kernel.add(1)  # as a kernel that starts again has it: the old one's write is not for it
    kernel.released.set()
    assert writer.result() == errno.ENOENT
    assert file.read_text() == "0\n"
    assert kernel.online == {0}


def test_a_reader_waits_for_the_write_and_reads_what_it_made(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path / "sys")
    file, writer = held(kernel)
    second = Started(lambda: kernel.write(str(file), b"1"))
    kernel.released.set()
    assert writer.result() is None
    assert second.result() is None
    assert Started(file.read_text).result() == "1\n"
