# SPDX-License-Identifier: Apache-2.0
"""A fault of the fake's own is seen as one, at once."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from kit.fakes.qemu.process import FakeProcess


def test_a_fake_that_fails_itself_ends_and_leaves_nobody_waiting() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name, FakeProcess(Path(name), stderr=subprocess.DEVNULL) as fake:
        with pytest.raises((EOFError, ConnectionError)):
            fake.steer.call("x-fake-close", monitor="none")
        assert fake.process.wait(30) != 0
