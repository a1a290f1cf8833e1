# SPDX-License-Identifier: Apache-2.0
"""The oldest ansible-core that the collection is for and the newest, with what ansible-test needs to run offline."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.lab import host
from kit.lab.cache import Cache, digest
from kit.lab.errors import LabError
from kit.lab.pythons import newest_python

ROOT = Path(__file__).resolve().parents[3]
_RECIPE = 1
#: Seconds, with a wide margin: the oldest builds one of its tools from sources.
_BUILD = 2400.0
#: In the place of a script that ansible-test would download from a host of its own. It calls ensurepip as a process:
#: within one, ensurepip would have pip forget which index it is to use.
_BOOTSTRAP = """\
import subprocess, sys
subprocess.check_call([sys.executable, '-m', 'ensurepip'], stdout=subprocess.DEVNULL)
words = [word for word in sys.argv[1:] if word not in ('--no-setuptools', '--no-wheel')]
sys.exit(subprocess.call([sys.executable, '-m', 'pip', 'install', '-q', *words]))
"""


@dataclass(frozen=True)
class AnsibleCore:
    """One version, in an environment of its own, with a home that holds ansible-test's."""

    folder: Path

    def program(self, name: str) -> str:
        """Return the path of one of its commands."""
        return str(self.folder / "venv/bin" / name)

    @property
    def version(self) -> str:
        """Return the version's number."""
        code = "import ansible.release; print(ansible.release.__version__)"
        return host.run([self.program("python"), "-c", code]).strip()

    def sanity(self, collection: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``ansible-test sanity`` in the collection's directory, which lies below ansible_collections."""
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        python = host.run([self.program("python"), "-c", code]).strip()
        # Without --python it would take each Python in $PATH, pyenv's among them, which are none.
        argv = [self.program("ansible-test"), "sanity", "--color", "no", "--python", python, *words]
        path = f"{self.folder}/venv/bin:{os.environ['PATH']}"
        environment = {**os.environ, "HOME": str(self.folder / "home"), "PATH": path, "LC_ALL": "C.UTF-8"}
        environment.pop("PYTHONPATH", None)
        return subprocess.run(
            argv,
            cwd=collection,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_BUILD,
            check=False,
        )


def find(which: str, collection: Path, progress: host.Progress = host.quiet) -> AnsibleCore:
    """Return the "oldest" or the "newest", made the first time. Raise LabError.

    It is made where it stays, since its programs name their places. ``collection`` is any that can be tested.
    """
    pins = ROOT / f"requirements/ansible-{which}.txt"
    python = newest_python() if which == "newest" else sys.executable
    version = host.run([python, "--version"])
    folder = Cache().root / f"ansible-{which}" / digest(_RECIPE, pins.read_text(), python, version, _BOOTSTRAP)
    folder.parent.mkdir(parents=True, exist_ok=True)
    core = AnsibleCore(folder)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            progress(f"installing the {which} ansible-core and the tools of its tests (some minutes)")
            shutil.rmtree(folder, ignore_errors=True)
            _make(core, [python], pins, collection)
            (folder / "ready").touch()
    return core


def _make(core: AnsibleCore, python: Sequence[str], pins: Path, collection: Path) -> None:
    host.run([*python, "-m", "venv", str(core.folder / "venv")])
    pip = [core.program("python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    host.run([*pip, "--require-hashes", "--requirement", str(pins)], timeout=_BUILD)
    cache = core.folder / "home/.ansible/test/cache"
    cache.mkdir(parents=True)
    for _ in range(3):
        primed = core.sanity(collection, "--prime-venvs")
        # It tells the name of what it would download.
        wanted = re.search(r"(get_pip_\w+\.py)", primed.stdout + primed.stderr)
        if primed.returncode == 0:
            return
        if wanted is None or (cache / wanted[1]).exists():
            break
        (cache / wanted[1]).write_text(_BOOTSTRAP)
    raise LabError(f"ansible-test does not get its tools:\n{primed.stdout[-3000:]}{primed.stderr[-3000:]}")
