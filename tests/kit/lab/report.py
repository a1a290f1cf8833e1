# SPDX-License-Identifier: Apache-2.0
"""Reports that machines read: which commit they are of, and that they are there whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def commit(root: Path) -> str:
    """The commit that is checked out there, with "-dirty" if files differ from it."""
    argv = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document."""
    replace(path, json.dumps(document, indent=2) + "\n")


def replace(path: Path, text: str) -> None:
    """Put a whole new file in the old one's place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)
