# SPDX-License-Identifier: Apache-2.0
"""A real systemd-journald in a mount namespace of its own: no entry of a test gets into this machine's journal.

It has an empty /run, so its socket and its files are where they are on any system, and what is run ``inside`` finds
them there. Debian's package systemd has both programs (see packaging/tools/setup.sh).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from kit.component.cli import until
from kit.until import DEADLINE

_ROOT = os.geteuid() == 0
_UNSHARE = ("unshare", *(() if _ROOT else ("--map-root-user",)), "--mount")
_CONFIG = """[Journal]
Storage=volatile
SplitMode=none
ReadKMsg=no
Audit=no
ForwardToSyslog=no
ForwardToWall=no
RateLimitIntervalSec=0
RuntimeMaxUse=16M
"""
_SCRIPT = """
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log/journal
printf '%s' "$1" >/run/systemd/journald.conf.d/test.conf
exec /usr/lib/systemd/systemd-journald
"""


class RealJournal:
    """``with RealJournal() as journal``: ``journal.inside`` is what a command line there begins with."""

    process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen([*_UNSHARE, "sh", "-c", _SCRIPT, "sh", _CONFIG])
        # The path leads through the process's own root: it says nothing of this machine's /run.
        until(lambda: Path(f"/proc/{self.process.pid}/root/run/systemd/journal/socket").is_socket())
        return self

    def __exit__(self, *_exc: object) -> None:
        self.process.terminate()
        self.process.wait(30)

    @property
    def inside(self) -> Sequence[str]:
        """Words before a command that is to run beside this journal."""
        user = () if _ROOT else ("--user", "--preserve-credentials")
        return ("nsenter", "--target", str(self.process.pid), *user, "--mount", f"--wd={Path.cwd()}")

    def run(self, *argv: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """How a command there ended."""
        return subprocess.run(
            [*self.inside, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            env={**os.environ, **(environment or {})},
        )

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        """What journalctl shows of these entries, once all that was sent is there."""
        synced = self.run("journalctl", "--sync")
        assert synced.returncode == 0, synced.stderr
        shown = self.run("journalctl", "--quiet", "--all", "--output=json", *matches)
        assert shown.returncode == 0, shown.stderr
        return [json.loads(line) for line in shown.stdout.splitlines()]
