# SPDX-License-Identifier: Apache-2.0
"""Builds the RPM packages into a directory: ``rpm.py DIR``, run with the tests' kit on its path.

rpmbuild runs in a root of its own, a Debian that carries it: what this machine has installed makes no difference. A
distribution of RPM's own has macros that Debian lacks; the spec says what holds without them.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import deb
import man
from kit.lab import host
from kit.lab.cache import Cache, digest

#: The first Debian whose tools for man pages and completions are as new as the pinned ones.
SUITE = "trixie"
PACKAGES = (
    *("rpm", "python3-pip", "python3-hatchling", "python3-argparse-manpage", "python3-shtab", "python3-grpcio"),
    *("python3-protobuf", "python3-rich", "python3-structlog", "python3-pyudev"),
)
#: Nothing in the packages is of the machine or of the time of the build.
_SETTINGS = {
    "_topdir": "/build",
    "_buildhost": "localhost",
    "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    "source_date_epoch_from_changelog": "0",
    "_build_name_fmt": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
}
_BUILD = """
set -eu
tree=$1 topdir=$2; shift 2
mount --rbind /dev "$tree/dev"; mount -t proc proc "$tree/proc" 2>/dev/null || mount --rbind /proc "$tree/proc"
mkdir -p "$tree/build"; mount --bind "$topdir" "$tree/build"
exec chroot "$tree" env -i "$@"
"""


@contextmanager
def root() -> Iterator[Path]:
    """Yield the tarball of the root with rpmbuild in it, made the first time."""

    def build(folder: Path) -> None:
        options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "info", "icons", "man")]
        host.bootstrap([SUITE], PACKAGES, folder / "root.tar", variant="apt", options=options, timeout=1800.0)

    with Cache().entry(f"rpmbuild-{SUITE}", digest(1, SUITE, PACKAGES), build) as entry:
        yield entry.path / "root.tar"


def source(version: str, date: int) -> bytes:
    """Return the source archive that the spec names: what packages are made from, all of this date."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in deb.inputs():
            path = deb.ROOT / name
            member = tarfile.TarInfo(f"vcpuctl-{version}/{name}")
            data = path.read_bytes()  # of a link, what it leads to
            member.size, member.mtime = len(data), date
            member.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=date)


def build(out: Path) -> list[Path]:
    """Build the packages into ``out``; return their paths. Raise BuildError with the end of what rpmbuild said."""
    version, date = deb.version(), man.source_date()
    out.mkdir(parents=True, exist_ok=True)
    alone = [] if os.geteuid() == 0 else ["--map-root-user", "--map-auto"]
    with tempfile.TemporaryDirectory(prefix="rpm-") as name, root() as tarball:
        folder = Path(name)
        tree, topdir = folder / "root", folder / "build"
        for directory in (tree, topdir / "SOURCES", topdir / "SPECS"):
            directory.mkdir(parents=True)
        (topdir / f"SOURCES/vcpuctl-{version}.tar.gz").write_bytes(source(version, int(date)))
        shutil.copyfile(deb.ROOT / "packaging/rpm/vcpuctl.spec", topdir / "SPECS/vcpuctl.spec")
        defined = [word for key, value in _SETTINGS.items() for word in ("--define", f"{key} {value}")]
        environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/build", f"SOURCE_DATE_EPOCH={date}"]
        # Debian's rpm has no database of what is installed: the root has what the spec asks for.
        command = [*environment, "rpmbuild", "-bb", "--nodeps", *defined, "/build/SPECS/vcpuctl.spec"]
        untar = ["tar", "-C", str(tree), "--exclude=./dev/*", "-xf", str(tarball)]
        log = out / "rpm.log"
        log.write_bytes(b"")
        deb.run(["unshare", *alone, *untar] if alone else untar, folder, log, dict(os.environ))
        argv = ["unshare", *alone, "--mount", "sh", "-c", _BUILD, "sh", str(tree), str(topdir), *command]
        deb.run(argv, folder, log, dict(os.environ))
        made = []
        for package in sorted(topdir.rglob("*.rpm")):
            made.append(out / package.name)
            shutil.copyfile(package, made[-1])
        log.unlink()
        subprocess.run(["unshare", *alone, "rm", "-rf", str(tree)] if alone else ["rm", "-rf", str(tree)], check=True)
    return made


def main() -> int:
    """Build; return the exit status."""
    try:
        for path in build(Path(sys.argv[1])):
            print(path)
    except deb.BuildError as error:
        print(f"rpm: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
