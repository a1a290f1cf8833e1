# SPDX-License-Identifier: Apache-2.0
"""What makes a host busy leaves nothing behind."""

from __future__ import annotations

import os

from kit.e2e.load import busy_host


def test_a_host_that_was_made_busy_has_nothing_open_afterwards() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with busy_host():
        assert len(os.listdir("/proc/self/fd")) > before
    assert len(os.listdir("/proc/self/fd")) == before
