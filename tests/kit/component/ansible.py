# SPDX-License-Identifier: Apache-2.0
"""The collection's modules as Ansible runs them, and playbooks, both on this machine, with the real ``vcpuctl``."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .cli import SOON

ROOT = Path(__file__).resolve().parents[3]
#: Ansible finds the collection below this directory.
COLLECTIONS = ROOT / "packaging/ansible"
_MODULES = COLLECTIONS / "ansible_collections/vcpuctl/vcpu/plugins/modules"
#: Has Ansible tell its results as JSON.
_CALLBACKS = Path(__file__).resolve().parent / "callbacks"
#: Where vcpuctl and Ansible's own commands are.
_BIN = Path(sys.executable).parent


def environment(of: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return what Ansible, its modules and vcpuctl get: no settings of the user's, and none of Ansible's own looks."""
    return {
        **of,
        "PATH": f"{_BIN}:{os.environ['PATH']}",
        "HOME": str(home),
        "ANSIBLE_CONFIG": str(_settings(home)),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_COLLECTIONS_PATHS": str(COLLECTIONS),  # as 2.14 calls it
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
    }


def _settings(home: Path) -> Path:
    path = home / "ansible.cfg"
    path.write_text("[defaults]\n")
    return path


def module(
    name: str, of: Mapping[str, str], home: Path, *, check: bool = False, diff: bool = False, **options: Any
) -> dict[str, Any]:
    """Run a module with these options, and return what it tells Ansible.

    ``of`` is the environment in which vcpuctl finds its VMs, ``home`` a directory for whatever is written.
    """
    arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_remote_tmp": str(home)}
    paths = [str(COLLECTIONS), *sys.path]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(_MODULES / f"{name}.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**environment(of, home), "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=SOON,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line]
    assert len(lines) == 1, f"{name} is to write one line: {done.stdout}{done.stderr}"
    result: dict[str, Any] = json.loads(lines[0])
    assert bool(result.get("failed")) == (done.returncode != 0), result
    # A task with this key has failed for Ansible, whatever the module says.
    assert "rc" not in result
    return result


class Played:
    """How a playbook ended. ``results`` are the tasks' by host and by name, ``stats`` the counts by host."""

    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status, self.words = status, stdout + stderr
        told = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
        self.stats: dict[str, dict[str, int]] = told[-1].get("stats", {}) if told else {}
        self.results: dict[str, dict[str, dict[str, Any]]] = {}
        for each in told[:-1]:
            self.results.setdefault(each["host"], {})[each["task"]] = {"ended": each["ended"], **each["result"]}

    def task(self, name: str, host: str = "localhost") -> dict[str, Any]:
        """Return a task's result on a host: the last, if there were several. ``ended`` is Ansible's word for it."""
        assert name in self.results.get(host, {}), f"{host} has no {name}\n{self.words}"
        return self.results[host][name]


def play(
    book: object,
    of: Mapping[str, str],
    home: Path,
    *words: str,
    program: str | None = None,
    within: float = SOON,
) -> Played:
    """Run a playbook, given as what its YAML would be, by ``program`` (the ansible-playbook beside this Python)."""
    path = home / "book.json"
    path.write_text(json.dumps(book))  # JSON is YAML
    settings = {"ANSIBLE_STDOUT_CALLBACK": "results", "ANSIBLE_CALLBACK_PLUGINS": str(_CALLBACKS)}
    argv = [program or str(_BIN / "ansible-playbook"), *words, str(path)]
    done = subprocess.run(
        argv,
        env={**environment(of, home), **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )
    return Played(done.returncode, done.stdout, f"{shlex.join(argv)}\n{done.stderr}")


def program(folder: Path, text: str) -> str:
    """A program in the place of vcpuctl."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def saying(folder: Path, document: Any, status: int = 0) -> str:
    """A program that says this, keeps its words and its input, and ends with this status."""
    (folder / "said").write_text(document if isinstance(document, str) else json.dumps(document))
    keep = f'echo "$@" >>{folder}/words\ncat >{folder}/input\n'
    return program(folder, f"{keep}cat {folder}/said\nexit {status}")
