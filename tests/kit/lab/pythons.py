# SPDX-License-Identifier: Apache-2.0
"""The Pythons of this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def newest_python() -> str:
    """Of those in $PATH, and of pyenv's, if there is one."""
    versions = [f"python3.{minor}" for minor in range(40, 10, -1)]
    for name in versions:
        places = [shutil.which(name), *sorted(map(str, Path.home().glob(f".pyenv/versions/3.*/bin/{name}")))]
        for place in filter(None, places):
            if subprocess.run([place, "-c", ""], capture_output=True, check=False).returncode == 0:
                return place
    raise AssertionError(f"none of {versions} is in PATH")
