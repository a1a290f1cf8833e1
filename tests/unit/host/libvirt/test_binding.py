# SPDX-License-Identifier: Apache-2.0
"""libvirt's module is made ready once, whoever needs it first, and at the same time."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest
from vcpu_host.libvirt import binding


class FakeLibvirt(ModuleType):
    """What of the module makes it ready."""

    def __init__(self) -> None:
        super().__init__("libvirt")
        self.registered = 0
        self.both = threading.Barrier(2)

    def registerErrorHandler(self, handler: object, context: object) -> None:  # noqa: N802 - libvirt's
        with contextlib.suppress(threading.BrokenBarrierError):
            self.both.wait(0.2)  # two that get here at the same time both go on

    def virEventRegisterDefaultImpl(self) -> None:  # noqa: N802 - libvirt's
        self.registered += 1

    def virEventRunDefaultImpl(self) -> int:  # noqa: N802 - libvirt's
        threading.Event().wait()
        return 0


@pytest.fixture
def libvirt(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLibvirt]:
    fake = FakeLibvirt()
    monkeypatch.setitem(sys.modules, "libvirt", fake)
    binding._loaded.cache_clear()
    yield fake
    binding._loaded.cache_clear()


def test_two_connections_that_are_opened_at_once_share_one_event_loop(libvirt: FakeLibvirt) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: binding.module(), range(2)))
    assert found == [libvirt, libvirt]
    assert libvirt.registered == 1
