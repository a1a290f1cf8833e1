# SPDX-License-Identifier: Apache-2.0
"""Every platform: the same commands through the same path, on a real guest of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from kit.e2e.machine import Machine
from kit.e2e.platforms import CELLS, Cell
from kit.e2e.races import outlived
from kit.e2e.trial import tried

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1800)]


def _param(cell: Cell) -> object:
    return pytest.param(cell, id=cell.name, marks=() if cell.daily else pytest.mark.slow)


@pytest.mark.parametrize("cell", [_param(cell) for cell in CELLS if not cell.kvm])
def test_every_command_on_every_platform(cell: Cell, machines: Callable[..., Machine]) -> None:
    outlived(partial(made, cell, machines), partial(tried, cell, "trial", None))


@pytest.mark.slow
@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in CELLS if "reboot" in cell.apart])
def test_a_restart_where_it_is_not_tried_with_the_rest(cell: Cell, machines: Callable[..., Machine]) -> None:
    checks = ("plug", "out-of-order", "reboot", "unplug")
    outlived(partial(made, cell, machines), partial(tried, cell, "restart", checks))


def made(cell: Cell, machines: Callable[..., Machine]) -> Machine:
    """The platform's VM."""
    return machines(cold=not cell.saved, qemu=cell.qemu, guest=cell.guest, **cell.changes)
