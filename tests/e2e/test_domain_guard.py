# SPDX-License-Identifier: Apache-2.0
"""Whoever acts behind libvirt fails the suite, also where no test looks for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from kit.e2e import planted

pytestmark = pytest.mark.e2e


def test_a_device_add_that_some_client_sends_fails_the_test_in_which_it_is_sent() -> None:
    line = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-rA"]
    done = subprocess.run([*line, planted.__file__], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    ended = {
        line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("PASSED", "ERROR", "FAILED"))
    }
    name = "tests/kit/e2e/planted.py::test_a_cpu_is_plugged"
    assert ended == {f"PASSED {name}_behind_libvirt", f"ERROR {name}_behind_libvirt", f"PASSED {name}_by_libvirt"}
    assert "BehindLibvirtError" in done.stdout
    assert '"vcpu3"' in done.stdout or "'vcpu3'" in done.stdout
