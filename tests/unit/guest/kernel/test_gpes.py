# SPDX-License-Identifier: Apache-2.0
"""What the kernel does not hear of: never told by a single reading, nor while anything is handled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.fakes.sysfs import EVENTS, GPE, FakeKernel
from vcpu_guest.kernel.gpes import PAUSE, Gpes
from vcpu_guest.kernel.sysfs import Sysfs


class Pauses:
    """Takes no time. Before each pause ends, what is to happen meanwhile happens."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.seconds: list[float] = []
        self._meanwhile = meanwhile

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self._meanwhile()


class Counting(Sysfs):
    """Counts what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[str] = []

    def read(self, path: str) -> str | None:
        self.reads.append(path)
        return super().read(path)


def test_a_kernel_at_rest_is_read_once_and_nothing_is_waited_for(kernel: FakeKernel) -> None:
    sysfs, pauses = Counting(kernel.root), Pauses()
    unhandled = Gpes(sysfs, pauses)
    assert unhandled() == ()
    sysfs.reads.clear()
    assert unhandled() == ()
    assert pauses.seconds == []
    # One that the firmware does not have is not looked at again.
    assert sysfs.reads == [f"{EVENTS}/gpe01", f"{EVENTS}/{GPE}"]


def test_an_event_that_stays_pending_while_nothing_is_handled_is_told(kernel: FakeKernel) -> None:
    pauses = Pauses()
    kernel.deafen()
    kernel.count("gpe1F", 7, pending=True)
    assert Gpes(Sysfs(kernel.root), pauses)() == (0x02, 0x1F)
    assert len(pauses.seconds) >= 2
    assert 0.5 <= sum(pauses.seconds) <= 2
    assert set(pauses.seconds) == {PAUSE}


def test_what_was_seen_unhandled_before_needs_no_long_watch_again(kernel: FakeKernel) -> None:
    pauses = Pauses()
    unhandled = Gpes(Sysfs(kernel.root), pauses)
    kernel.deafen()
    first = unhandled()
    pauses.seconds.clear()
    assert unhandled() == first
    assert len(pauses.seconds) == 1
    kernel.deafen(on=False)
    assert unhandled() == ()


@pytest.mark.parametrize(
    "happens",
    [
        lambda kernel: kernel.count(GPE, 0),
        lambda kernel: kernel.count(GPE, 1, pending=True),
        lambda kernel: kernel.count("sci", 4),
        lambda kernel: (kernel.root / EVENTS / "sci").unlink(),
        lambda kernel: shutil.rmtree(kernel.root / EVENTS),
    ],
    ids=["handled", "another one", "others are handled", "nobody counts", "gone"],
)
@pytest.mark.parametrize("late", [False, True])
def test_an_event_that_is_handled_a_moment_later_is_none(
    kernel: FakeKernel, happens: Callable[[FakeKernel], None], late: bool
) -> None:
    def meanwhile() -> None:
        if len(pauses.seconds) == (5 if late else 1):
            happens(kernel)

    pauses = Pauses(meanwhile)
    kernel.deafen()
    assert Gpes(Sysfs(kernel.root), pauses)() == ()


def test_something_new_after_a_verdict_is_watched_as_long_as_at_first(kernel: FakeKernel) -> None:
    pauses = Pauses()
    unhandled = Gpes(Sysfs(kernel.root), pauses)
    kernel.deafen()
    assert unhandled() == (0x02,)
    whole = len(pauses.seconds)
    pauses.seconds.clear()
    kernel.count("sci", 4)
    assert unhandled() == (0x02,)
    assert len(pauses.seconds) == whole


@pytest.mark.parametrize(
    "line",
    [
        "       0  EN STS enabled      masked  ",
        "       0     STS enabled      unmasked",
        "       0  EN STS disabled     unmasked",
        "       0  EN STS wake_enabled unmasked",
        "       0  EN STS invalid      unmasked",
        "nonsense  EN STS enabled      unmasked",
        "       0",
        "",
    ],
)
def test_what_the_kernel_does_not_wait_for_is_no_event(kernel: FakeKernel, line: str) -> None:
    (kernel.root / EVENTS / GPE).write_text(f"{line}\n")
    pauses = Pauses()
    assert Gpes(Sysfs(kernel.root), pauses)() == ()
    assert pauses.seconds == []


def test_the_power_button_is_no_gpe_and_machines_without_such_files_have_nothing_to_tell(kernel: FakeKernel) -> None:
    (kernel.root / EVENTS / "ff_pwr_btn").write_text("       0  EN STS enabled      unmasked\n")
    assert Gpes(Sysfs(kernel.root), Pauses())() == ()
    shutil.rmtree(kernel.root / "firmware")
    assert Gpes(Sysfs(kernel.root), Pauses())() == ()


def test_a_counter_that_cannot_be_read_proves_nothing(kernel: FakeKernel) -> None:
    path = kernel.root / EVENTS / GPE
    path.unlink()
    path.symlink_to("/proc/self/mem")  # opens, and gives EIO when it is read
    assert Gpes(Sysfs(kernel.root), Pauses())() == ()
