# SPDX-License-Identifier: Apache-2.0
"""What the packaging tests look at: the built packages, and a way to run programs on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from debfile import Deb, Run, call

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def run() -> Run:
    return call


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def debs() -> dict[str, Deb]:
    """The built packages by name."""
    found = {path.name.split("_")[0]: Deb(path) for path in (ROOT / "build/deb").glob("*.deb")}
    assert found.keys() == {"python3-vcpu-proto", "vcpu-host", "vcpu-guest"}, "run 'make deb' first"
    return found
