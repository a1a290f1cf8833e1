# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from vcpu_host.cli import garbage


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
    gc.enable()


def test_garbage_is_looked_for_again_once_all_is_loaded() -> None:
    before = gc.get_threshold()
    garbage.put_off()
    assert not gc.isenabled()
    garbage.begin(seldom=False)
    assert (gc.isenabled(), gc.get_threshold()) == (True, before)
    assert gc.get_freeze_count() > 0


def test_a_command_looks_seldom_and_a_program_that_uses_the_library_as_it_chose() -> None:
    before = gc.get_threshold()
    garbage.begin(seldom=True)  # nobody has put it off
    assert gc.get_threshold() == before
    garbage.put_off()
    garbage.begin(seldom=True)
    assert gc.isenabled()
    assert gc.get_threshold()[0] > 10 * before[0]
