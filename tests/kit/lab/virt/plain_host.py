# SPDX-License-Identifier: Apache-2.0
"""A host without libvirt: a Debian with an SSH server, in namespaces of its own, as Ansible finds it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from kit.lab import host, scratch
from kit.lab.cache import Cache, digest
from kit.lab.virt.ground import Ground
from kit.lab.virt.ssh import SshServer

SUITE = "bookworm"
_RECIPE = 1
#: What a Debian has that is managed by Ansible, and what our packages need: there is no network to fetch it from.
_PACKAGES = (
    *("systemd", "udev", "openssh-server", "python3", "python3-apt", "python3-venv", "procps"),
    *("python3-grpcio", "python3-protobuf", "python3-pyudev", "python3-structlog", "python3-rich"),
)
_SSHD_CONF = "UsePAM no\nStrictModes no\nUseDNS no\nMaxStartups 100\n"


@contextmanager
def root(cache: Cache, progress: host.Progress = host.quiet) -> Iterator[Path]:
    """Yield the directory of the root that such hosts share, made the first time."""

    def build(folder: Path) -> None:
        progress(f"fetching a host of {SUITE} (a minute)")
        tarball = folder / "root.tar"
        options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "info", "icons")]
        host.bootstrap([SUITE], _PACKAGES, tarball, variant="apt", options=options, timeout=1800.0)
        tree = folder / "root"
        tree.mkdir()
        host.run(["tar", "-C", str(tree), "--exclude=./dev/*", "--exclude=./var/lib/apt/lists/*", "-xf", str(tarball)])
        tarball.unlink()
        (tree / "etc/ssh/sshd_config.d/lab.conf").write_text(_SSHD_CONF)

    with cache.entry(f"plain-host-{SUITE}", digest(_RECIPE, SUITE, _PACKAGES, _SSHD_CONF), build) as entry:
        yield entry.path / "root"


class PlainHost:
    """A machine with an SSH server. Use it as a context manager: its end is the end of all its processes."""

    def __init__(self, name: str, shared: Sequence[Path] = (), progress: host.Progress = host.quiet) -> None:
        """Describe it; ``shared`` are directories that it has at the same paths as this machine."""
        self.name, self._shared, self._progress = name, shared, progress
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        scratch.sweep()
        with ExitStack() as stack:
            layer = stack.enter_context(root(Cache(), self._progress))
            self.folder = scratch.make()
            stack.callback(shutil.rmtree, self.folder)
            #: The namespaces: programs are run in the host by ``ground.run``, its files are found by ``ground.path``.
            self.ground = Ground([layer], self.folder, self.name, [self.folder, *self._shared])
            stack.callback(self.ground.close)
            self.address = self.ground.link()
            self.ssh = SshServer(self.ground)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def ask(self, *argv: str) -> str:
        """Return what a program says in the host. AssertionError if it fails."""
        done: subprocess.CompletedProcess[str] = self.ground.run(argv)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
