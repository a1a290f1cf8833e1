# SPDX-License-Identifier: Apache-2.0
"""Makes the platform of the tests known, whose slots have several threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.sim.views import CORES
from vcpu_host.core import platforms


@pytest.fixture(autouse=True, scope="session")
def _cores_are_known() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platforms, "_TABLE", (*platforms._TABLE, CORES))
        yield
