# SPDX-License-Identifier: Apache-2.0
"""The host's side: the packages the lab needs, running commands, and how apt is set up here."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from kit.lab.errors import CommandError

Progress = Callable[[str], None]

#: Debian packages the lab's host needs (QEMU itself comes in private roots, see ``lab.qemu``).
PACKAGES = (
    "mmdebstrap",
    "arch-test",
    "debian-archive-keyring",
    "e2fsprogs",
    "fakeroot",
    "uidmap",
    "genisoimage",
    "iproute2",
    "openssh-client",
    "util-linux",
)

#: apt settings of the host that a bootstrap must share to reach the same mirror in the same way.
_APT_SHARED = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")


def quiet(_message: str) -> None:
    """The progress callback that says nothing."""


def run(argv: Sequence[str], *, timeout: float = 600.0, cwd: Path | None = None) -> str:
    """Run a host command to its end and return its standard output.

    Raises CommandError with the last 20 lines of what it said if it fails, is missing or takes longer than
    ``timeout`` seconds.
    """
    try:
        done = subprocess.run(
            list(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, cwd=cwd, check=False
        )
    except FileNotFoundError as error:
        raise CommandError(
            f"{argv[0]} is not installed: `python3 -m kit.lab packages` lists what the lab needs"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{shlex.join(argv)} took longer than {timeout:.0f} s") from error
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise CommandError(f"{shlex.join(argv)} ended with status {done.returncode}:\n{tail}")
    return done.stdout


def mirror() -> str | None:
    """The URI of the Debian archive that the host's apt uses, or None to leave the choice to mmdebstrap."""
    listing = run(["apt-get", "indextargets", "--format", "$(CREATED_BY) $(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)"])
    for line in listing.splitlines():
        created_by, origin, label, component, uri = (line.split(" ", 4) + [""] * 5)[:5]
        if (created_by, origin, label, component) == ("Packages", "Debian", "Debian", "main"):
            return uri
    return None


def apt_options() -> list[str]:
    """The host's apt settings for proxies and validity checks, as mmdebstrap ``--aptopt`` arguments."""
    settings = run(["apt-config", "dump"]).splitlines()
    return [f"--aptopt={line}" for line in settings if line.startswith(_APT_SHARED) and not line.endswith('"";')]


def foreign_options(arch: str) -> list[str]:
    """mmdebstrap's arguments for a root of another architecture than this machine's."""
    # it knows fewer architectures than we do, and has no need to check what was done before (``lab.foreign``)
    return [f"--architectures={arch}", "--skip=check/qemu"]


def bootstrap(
    suites: Sequence[str],
    packages: Sequence[str],
    tarball: Path,
    *,
    variant: str,
    options: Sequence[str] = (),
    timeout: float = 600.0,
) -> None:
    """Make a tarball of a Debian root by mmdebstrap; works as root and, by user namespaces, without.

    The first of the suites is the root's; from the others (backports) nothing is taken unasked.
    """
    argv = ["mmdebstrap", f"--variant={variant}", "--format=tar", f"--include={','.join(packages)}"]
    argv += ['--aptopt=APT::Install-Recommends "false"', *apt_options(), *options, suites[0], str(tarball)]
    uri = mirror()
    if uri is not None:
        argv += [f"deb {uri} {suite} main" for suite in suites]
    run(argv, timeout=timeout)
