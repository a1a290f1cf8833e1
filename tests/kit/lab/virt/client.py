# SPDX-License-Identifier: Apache-2.0
"""libvirt's Python module for an interpreter that has none: a virtual environment, say.

PyPI has its source alone. Debian's build of it for Debian's own Python serves every environment made from that Python;
of the libraries that it needs, those that this machine lacks come with it.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kit.lab import host
from kit.lab.cache import Cache, digest
from kit.lab.errors import LabError

#: The suite whose Python module it is, by the Python that it is built for.
_SUITES: Mapping[str, str] = {"cpython-311-x86_64-linux-gnu": "bookworm"}
_RECIPE = 2
_MODULES = ("libvirt.py", "libvirt_qemu.py", "libvirtaio.py", "libvirtmod")
_FOLDERS = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")


@contextmanager
def find(cache: Cache, progress: host.Progress = host.quiet) -> Iterator[Mapping[str, str]]:
    """Yield the environment variables with which this interpreter imports libvirt, fetched the first time.

    Raises LabError for a Python that no suite has the module for.
    """
    tag = str(sysconfig.get_config_var("SOABI"))
    if tag not in _SUITES:
        raise LabError(f"no libvirt module for {tag}: the lab knows {', '.join(_SUITES)}")
    here = _libraries_here()

    def build(folder: Path) -> None:
        progress(f"fetching libvirt's Python module ({_SUITES[tag]})")
        _fetch(_SUITES[tag], here, folder)

    with cache.entry("libvirt-python", digest(_RECIPE, tag, sorted(here)), build) as entry:
        yield {"PYTHONPATH": str(entry.path / "python"), "LD_LIBRARY_PATH": str(entry.path / "lib")}


def _fetch(suite: str, here: frozenset[str], folder: Path) -> None:
    tarball, root = folder / "root.tar", folder / "root"
    host.bootstrap([suite], ["python3-libvirt"], tarball, variant="extract")
    root.mkdir()
    host.run(["tar", "-C", str(root), "--no-same-owner", "--exclude=./dev/*", "-xf", str(tarball)])
    tarball.unlink()
    modules, libraries = folder / "python", folder / "lib"
    modules.mkdir()
    libraries.mkdir()
    for path in (root / "usr/lib/python3/dist-packages").iterdir():
        if path.name.startswith(_MODULES):
            path.rename(modules / path.name)
    folders = [root / part for part in _FOLDERS if (root / part).is_dir()]
    loader = next(path / "ld-linux-x86-64.so.2" for path in folders if (path / "ld-linux-x86-64.so.2").exists())
    search = ":".join(map(str, folders))
    for module in modules.glob("libvirtmod*.so"):
        for line in host.run([str(loader), "--library-path", search, "--list", str(module)]).splitlines():
            name, _, found = line.strip().partition(" => ")
            if found and name not in here:
                source = Path(found.rpartition(" (")[0])
                (libraries / name).write_bytes(source.read_bytes())
    host.run(["rm", "-r", str(root)])


def _libraries_here() -> frozenset[str]:
    """Names of the libraries that the loader of this machine finds by itself."""
    return frozenset(line.split()[0] for line in host.run(["/sbin/ldconfig", "-p"]).splitlines()[1:] if " => " in line)
