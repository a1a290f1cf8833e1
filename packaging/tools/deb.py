# SPDX-License-Identifier: Apache-2.0
"""Builds the three .debs into build/deb, unless they are already what the tree gives.

The tree is laid out in build/deb/work/src with packaging/debian at its root, and beside it, in made/, what is
not in the repository: man pages, completions, and qemu.qmp's wheel, pinned by hash (docs/adr/0005).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import man

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build/deb"
#: What the packages are made from; nothing else makes a rebuild necessary.
INPUTS = (
    *("proto", "host", "guest", "packaging", "docs/json"),
    *("requirements/vendor.txt", "README.md", "CHANGELOG.md", "LICENSE"),
)
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


class BuildError(Exception):
    """The packages could not be built. Its text ends with what the failing program said."""


def inputs() -> list[str]:
    """The files of the tree that the packages are made from, as paths from its root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *INPUTS],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    return sorted({name for name in listed if name and (ROOT / name).is_file()})


def fingerprint(names: list[str]) -> str:
    """A hash of the files' names, modes and contents."""
    digest = hashlib.sha256()
    for name in names:
        path = ROOT / name
        executable = bool(path.stat().st_mode & 0o100)
        digest.update(f"{name}\0{executable}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def run(command: list[str], cwd: Path, log: Path, environment: dict[str, str]) -> None:
    """Run a program with its output in ``log``. Raises BuildError with the log's end."""
    with log.open("ab") as out:
        status = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, check=False
        ).returncode
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise BuildError(f"{command[0]} ended with status {status}, {log} ends:\n{tail}")


def lay_out(names: list[str], source: Path, log: Path, environment: dict[str, str]) -> None:
    """Make the source tree that dpkg-buildpackage works on."""
    shutil.rmtree(source, ignore_errors=True)
    for name in names:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    (source / "packaging/debian").rename(source / "debian")
    vendor = source / "made/vendor"
    vendor.mkdir(parents=True)
    pins = ROOT / "requirements/vendor.txt"
    fetch = [*PIP, "download", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(pins)]
    run([*fetch, "--dest", str(vendor)], ROOT, log, environment)
    man.make(source / "made", version())
    # Files get into the packages with their times, which are those of the checkout; only later ones are cut to the
    # date.
    date = int(environment["SOURCE_DATE_EPOCH"])
    for path in source.rglob("*"):
        os.utime(path, (date, date), follow_symlinks=False)


def version() -> str:
    """The version of the packages: the newest in Debian's changelog."""
    first = (ROOT / "packaging/debian/changelog").read_text().split("\n", 1)[0]
    return first.split("(")[1].split(")")[0]


def build(names: list[str]) -> None:
    """Build the packages and put them in OUT. Raises BuildError."""
    log = OUT / "build.log"
    log.write_bytes(b"")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "VIRTUAL_ENV"))},
        "SOURCE_DATE_EPOCH": man.source_date(),
        # The packages are built with the distribution's own Python and tools, whatever else is first on the path.
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
    }
    work = OUT / "work"
    shutil.rmtree(work, ignore_errors=True)
    source = work / "src"
    lay_out(names, source, log, environment)
    # Nothing is compiled here: the compiler that Debian takes for granted is not needed. `make setup` sees to the rest.
    flags = ["--build=binary", "--unsigned-source", "--unsigned-changes", "--no-check-builddeps"]
    run(["dpkg-buildpackage", *flags], source, log, environment)
    for old in OUT.glob("*.deb"):
        old.unlink()
    for made in work.glob("*.deb"):
        made.rename(OUT / made.name)
    for made in work.glob("*.changes"):
        made.replace(OUT / made.name)


def main() -> int:
    """Build if anything changed; returns the exit status."""
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build_if_changed()


def build_if_changed() -> int:
    """Build unless the stamp says that nothing changed; returns the exit status."""
    names = inputs()
    # The date is in the packages, and may be the caller's.
    stamp, wanted = OUT / "stamp", f"{fingerprint(names)} {man.source_date()}"
    if stamp.exists() and stamp.read_text() == wanted and len(list(OUT.glob("*.deb"))) == 3:
        return 0
    print("deb        building the packages into build/deb", flush=True)
    started = time.monotonic()
    stamp.unlink(missing_ok=True)  # a build that is ended in its middle may have changed some of the packages
    try:
        build(names)
    except BuildError as error:
        print(f"deb: {error}", file=sys.stderr)
        return 1
    stamp.write_text(wanted)
    print(f"deb        built in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
