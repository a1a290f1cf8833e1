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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import deb
import man
from kit.lab import host
from kit.lab.cache import Cache, digest

SUITE = "trixie"
#: Where the packages have our modules.
SITE = "/usr/lib/vcpuctl"
#: rpmbuild with what the spec builds with, and what the packages need to run.
PACKAGES = (
    *("rpm", "python3-pip", "python3-hatchling"),
    *("python3-grpcio", "python3-protobuf", "python3-pyudev", "python3-rich", "python3-structlog"),
)
#: Nothing in the packages is of the machine or of the time of the build.
_SETTINGS = {
    "_topdir": "/build",
    # for any Python: the directory of a certain one would bind the packages to it
    "vcpuctl_site": SITE,
    "_buildhost": "localhost",
    "use_source_date_epoch_as_buildtime": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    "source_date_epoch_from_changelog": "0",
    "_build_name_fmt": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
}
#: Runs in a mount namespace of its own: $1 is the root, $2 what it has as /build.
_ENTER = """
set -eu
tree=$1 topdir=$2; shift 2
mount --rbind "$tree" "$tree"  # rpm's plugin unshare changes the propagation of /, which has to be a mount for that
mount --rbind /dev "$tree/dev"
mount -t proc proc "$tree/proc" 2>/dev/null || mount --rbind /proc "$tree/proc"
mkdir -p "$tree/build"; mount --bind "$topdir" "$tree/build"
exec chroot "$tree" env -i "$@"
"""
#: Who is not root is root in a user namespace.
_ALONE = () if os.geteuid() == 0 else ("--map-root-user", "--map-auto")


@contextmanager
def root() -> Iterator[Path]:
    """Yield the tarball of the root with rpmbuild in it, made the first time."""

    def build(folder: Path) -> None:
        options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "info", "icons", "man")]
        host.bootstrap([SUITE], PACKAGES, folder / "root.tar", variant="apt", options=options, timeout=1800.0)

    with Cache().entry(f"rpmbuild-{SUITE}", digest(1, SUITE, PACKAGES), build) as entry:
        yield entry.path / "root.tar"


def source(version: str, date: int) -> bytes:
    """Return the source archive that the spec names: what packages are made from, all of this date.

    Man pages and completions, which are not in the repository, lie in made/, as in the tree of the Debian packages.
    """
    plain = io.BytesIO()
    with (
        tempfile.TemporaryDirectory(prefix="rpm-made-") as folder,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        man.make(Path(folder), version)
        paths = {name: deb.ROOT / name for name in deb.inputs()}
        made = (path for path in Path(folder).rglob("*") if path.is_file())
        paths |= {f"made/{path.relative_to(folder)}": path for path in made}
        for name, path in sorted(paths.items()):
            member = tarfile.TarInfo(f"vcpuctl-{version}/{name}")
            data = path.read_bytes()  # of a link, what it leads to
            member.size, member.mtime = len(data), date
            member.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=date)


class Root:
    """A root with rpmbuild, unpacked; ``topdir`` is its /build. Use it as a context manager."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        with ExitStack() as stack:
            tarball = stack.enter_context(root())
            folder = Path(tempfile.mkdtemp(prefix="rpm-"))
            # files of other users may be in it
            stack.callback(subprocess.run, ["unshare", *_ALONE, "rm", "-rf", str(folder)], check=True)
            self.tree, self.topdir = folder / "root", folder / "build"
            self.tree.mkdir()
            self.topdir.mkdir()
            untar = ["tar", "-C", str(self.tree), "--exclude=./dev/*", "-xf", str(tarball)]
            subprocess.run(["unshare", *_ALONE, *untar], check=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def command(self, *words: str) -> list[str]:
        """Return what runs these words, variables of the environment first, in the root."""
        enter = ["unshare", *_ALONE, "--mount", "sh", "-c", _ENTER, "sh", str(self.tree), str(self.topdir)]
        return [*enter, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/build", "LC_ALL=C.UTF-8", *words]


def build(out: Path) -> list[Path]:
    """Build the packages into ``out``; return their paths. Raise BuildError with the end of what rpmbuild said."""
    version, date = deb.version(), man.source_date()
    out.mkdir(parents=True, exist_ok=True)
    made = []
    with Root() as where:
        for name in ("SOURCES", "SPECS"):
            (where.topdir / name).mkdir()
        (where.topdir / f"SOURCES/vcpuctl-{version}.tar.gz").write_bytes(source(version, int(date)))
        shutil.copyfile(deb.ROOT / "packaging/rpm/vcpuctl.spec", where.topdir / "SPECS/vcpuctl.spec")
        defined = [word for key, value in _SETTINGS.items() for word in ("--define", f"{key} {value}")]
        # Debian's rpm has no database of what is installed: the root has what the spec asks for.
        words = [f"SOURCE_DATE_EPOCH={date}", "rpmbuild", "-bb", "--nodeps", *defined, "/build/SPECS/vcpuctl.spec"]
        log = where.topdir / "log"
        log.write_bytes(b"")
        deb.run(where.command(*words), where.topdir, log, dict(os.environ))
        for package in sorted(where.topdir.rglob("*.rpm")):
            made.append(out / package.name)
            shutil.copyfile(package, made[-1])
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
