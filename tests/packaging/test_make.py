# SPDX-License-Identifier: Apache-2.0
"""The Makefile's promises, seen without running the long ones."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from debfile import Run

TARGETS = {"help", "setup", "demo", "test", "check", "e2e", "bench", "proto", "deb", "man", "clean"}


def clean_environment() -> dict[str, str]:
    """Without what an outer make hands down."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}


def test_make_alone_lists_every_target_of_the_design(root: Path, run: Run) -> None:
    listed = re.findall(r"^  ([a-z0-9-]+) +\S", run("make", cwd=root, env=clean_environment()), re.MULTILINE)
    assert set(listed) >= TARGETS
    assert len(listed) == len(set(listed))


def test_every_target_that_is_listed_says_what_it_does_in_one_line(root: Path, run: Run) -> None:
    lines = run("make", "help", cwd=root, env=clean_environment()).splitlines()
    assert max(map(len, lines)) <= 120


def test_the_tests_of_ci_include_every_kind(root: Path, run: Run) -> None:
    planned = run("make", "--dry-run", "test", cwd=root, env=clean_environment())
    for kind in ("unit", "contract", "component", "packaging", "e2e"):
        assert f"tests/{kind}" in planned
    assert ".venv-oldest/bin/python" in planned
    assert "buf breaking" in planned


def test_ci_runs_the_command_of_the_readme(root: Path) -> None:
    assert "make test" in (root / ".ci/run").read_text()
