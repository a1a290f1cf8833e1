# SPDX-License-Identifier: Apache-2.0
"""Man pages and completions: made from the parsers, complete, and free of faults."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import man
import pytest
from vcpu_host.cli.parser import build_parser

if TYPE_CHECKING:
    from debfile import Run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("made")
    man.make(target, "9.8.7")
    return target


def commands() -> list[str]:
    actions = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return list(actions[0].choices)


@pytest.mark.parametrize("page", ["vcpuctl.1", "vcpud.8"])
def test_a_page_renders_without_a_warning_and_says_its_version(made: Path, run: Run, page: str) -> None:
    path = made / "man" / page
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "120"}
    warnings = run("sh", "-c", f"man --warnings -E UTF-8 -l {path} 2>&1 >/dev/null", env=environment)
    assert warnings == ""
    assert "9.8.7" in path.read_text()


def test_the_page_and_every_completion_know_every_command(made: Path) -> None:
    texts = [made / "man/vcpuctl.1", *(made / "completions" / shell / name for shell, name in man.SHELLS.items())]
    for path in texts:
        text = path.read_text().replace("\\-", "-")
        missing = [command for command in commands() if command not in text]
        assert not missing, f"{path.name} lacks {missing}"


def test_bash_completes_commands_and_options(made: Path, run: Run) -> None:
    script = f"""
        source {made}/completions/bash/vcpuctl
        complete=$(complete -p vcpuctl | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        ask() {{ COMP_WORDS=("$@"); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=();
            "$complete" vcpuctl "${{@: -1}}"
            printf '%s\\n' "${{COMPREPLY[@]}}"; }}
        ask vcpuctl pl
        echo --
        ask vcpuctl --time
    """
    offered, options = run("bash", "--norc", "-c", script).split("--\n", 1)
    assert set(offered.split()) == {"plug", "plan"}
    assert options.split() == ["--timeout"]


def test_zsh_finds_its_marker_on_the_first_line(made: Path) -> None:
    assert (made / "completions/zsh/_vcpuctl").read_text().startswith("#compdef vcpuctl\n")
