# SPDX-License-Identifier: Apache-2.0
"""Makes all that a release consists of, into build/dist; run with the tests' kit on its path.

Debian packages, wheels and source archives, RPM packages, the Ansible collection, the bill of materials, and the
checksums of all. The same tree gives the same bytes, wherever and whenever it is built.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import collection
import deb
import man
import rpm
import sbom

OUT = deb.ROOT / "build/dist"
PARTS = ("proto", "host", "guest")


def archives(out: Path) -> None:
    """Build a source archive of each distribution, and from it its wheel. Raise CalledProcessError with uv's words."""
    uv = Path(sys.executable).parent / "uv"
    environment = {
        **os.environ,
        # uv looks for the build backend in the environment that is active.
        "VIRTUAL_ENV": str(Path(sys.executable).parents[1]),
        "SOURCE_DATE_EPOCH": man.source_date(),
    }
    options = ("--quiet", "--python", sys.executable, "--no-build-isolation", "--offline", "--out-dir", str(out))
    for part in PARTS:
        command = [str(uv), "build", *options, str(deb.ROOT / part)]
        subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    (out / ".gitignore").unlink(missing_ok=True)


def checksums(out: Path) -> str:
    """Return the lines that ``sha256sum --check`` reads."""
    files = sorted(path for path in out.iterdir() if path.name != "SHA256SUMS")
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def make(out: Path) -> None:
    """Fill the directory, from nothing. Raise CalledProcessError or BuildError."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if deb.main():
        raise deb.BuildError("the Debian packages could not be built")
    for package in deb.OUT.glob("*.deb"):
        shutil.copyfile(package, out / package.name)
    archives(out)
    rpm.build(out)
    collection.build(out)
    (out / f"vcpuctl-{deb.version()}.cdx.json").write_text(sbom.make(deb.ROOT, int(man.source_date())))
    (out / "SHA256SUMS").write_text(checksums(out))


def main() -> int:
    """Make all of it; return the exit status."""
    try:
        make(OUT)
    except deb.BuildError as error:
        print(f"dist: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"dist: {error}\n{error.stdout or ''}{error.stderr or ''}", file=sys.stderr)
        return 1
    print((OUT / "SHA256SUMS").read_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
