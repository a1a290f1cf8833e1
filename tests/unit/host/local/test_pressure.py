# SPDX-License-Identifier: Apache-2.0
"""How much this host's own tasks wait."""

from __future__ import annotations

from pathlib import Path

import pytest
from vcpu_host.local.pressure import cpu_pressure


def test_it_is_the_share_of_the_last_ten_seconds(tmp_path: Path) -> None:
    file = tmp_path / "cpu"
    file.write_text("some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    assert cpu_pressure(file) == pytest.approx(0.125)


def test_a_kernel_that_does_not_tell_is_not_known(tmp_path: Path) -> None:
    assert cpu_pressure(tmp_path / "none") is None
    (tmp_path / "empty").write_text("")
    assert cpu_pressure(tmp_path / "empty") is None
