# SPDX-License-Identifier: Apache-2.0
"""QEMU binaries by version, each in a private root of its own, apart from the host's packages.

A private root is the plain extraction of a suite's packages; its programs are run by that root's own dynamic loader, so
neither the host's libraries nor its QEMU matter. (What a program starts in its turn, such as the ``sh`` of an ``exec:``
migration, gets no library path from it and runs as ever.)
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from kit.lab import foreign, host
from kit.lab.arch import ARCHES, NATIVE
from kit.lab.cache import Cache, digest
from kit.lab.errors import LabError

#: The Debian suite that carries each version.
SUITES: Mapping[str, str] = {"7.2": "bookworm", "10.0": "trixie", "11.1": "sid"}
#: The lab's standard: older ones die under TCG when a slot is plugged a second time.
STANDARD = "10.0"
#: The target that the host's own QEMU may stand for.
NATIVE_TARGET = ARCHES[NATIVE].target

#: Debian's packages by QEMU's target; those that bookworm calls otherwise stand below.
_PACKAGES: Mapping[str, str] = {
    "x86_64": "qemu-system-x86",
    "ppc64": "qemu-system-ppc",
    "aarch64": "qemu-system-arm",
    "s390x": "qemu-system-s390x",
    "loongarch64": "qemu-system-loongarch64",
}
_BOOKWORM: Mapping[str, str] = {"s390x": "qemu-system-misc", "loongarch64": "qemu-system-misc"}
_RECIPE = 1
#: By the architecture of the programs: Debian's folder of libraries, and the dynamic loader in it.
_LIBRARIES: Mapping[str, tuple[str, str]] = {
    "amd64": ("lib/x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
    "ppc64el": ("lib/powerpc64le-linux-gnu", "ld64.so.2"),
}
#: Never needed by a machine without display, sound or network boot.
_DROP = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/icons", "dev", "var", "etc")


@dataclass(frozen=True)
class Qemu:
    """A QEMU that can be run: how to start its programs, and what it says it is."""

    version: str
    full_version: str
    system: tuple[str, ...]
    img: tuple[str, ...]
    #: Environment it needs beside the caller's.
    env: Mapping[str, str] = field(default_factory=dict)
    #: Identity of the build, for the keys of what is saved with it.
    key: str = ""
    #: The private root that it comes from; None for the host's own.
    root: Path | None = None

    def moved(self, root: Path) -> Qemu:
        """The same QEMU, whose private root lies elsewhere: in a guest, say."""

        def there(text: str) -> str:
            return text.replace(str(self.root), str(root))

        return replace(
            self,
            system=tuple(map(there, self.system)),
            img=tuple(map(there, self.img)),
            env={name: there(value) for name, value in self.env.items()},
            root=root,
        )


@contextmanager
def find(
    cache: Cache, version: str, target: str = NATIVE_TARGET, progress: host.Progress = host.quiet
) -> Iterator[Qemu]:
    """The QEMU of that version: the host's own where it fits, else a private root, fetched the first time.

    For the standard version any newer QEMU of the host is as good. Raises LabError for a version nobody carries.
    """
    own = _host_qemu() if target == NATIVE_TARGET else None
    if own is not None and (own.version == version or (version == STANDARD and _number(own) >= (10, 0))):
        yield own
        return
    with private(cache, version, target, progress) as found:
        yield found


@contextmanager
def private(
    cache: Cache,
    version: str,
    target: str = NATIVE_TARGET,
    progress: host.Progress = host.quiet,
    arch: str = NATIVE,
) -> Iterator[Qemu]:
    """The QEMU of that version in a private root (``Qemu.root``). Raises LabError for a version nobody carries.

    Its programs are of ``arch``: to be run in a guest, if that is not this machine's.
    """
    if version not in SUITES:
        raise LabError(f"no QEMU {version}: the lab knows {', '.join(SUITES)}")
    suite = SUITES[version]
    packages = (_BOOKWORM.get(target, _PACKAGES[target]) if suite == "bookworm" else _PACKAGES[target], "qemu-utils")

    def build(folder: Path) -> None:
        progress(f"fetching QEMU {version} for {target} ({suite}) into a private root")
        _fetch(suite, packages, target, folder, arch)

    foreign.enable(cache, ARCHES[arch], progress)  # to have it say what it is
    kind = f"qemu-{version}-{target}{'' if arch == NATIVE else f'-on-{arch}'}"
    with cache.entry(kind, digest(_RECIPE, suite, packages, _DROP), build) as entry:
        yield _private(version, target, entry.path, entry.build_id, arch)


def _fetch(suite: str, packages: tuple[str, ...], target: str, folder: Path, arch: str) -> None:
    tarball = folder / "root.tar"
    options = [] if arch == NATIVE else host.foreign_options(arch)
    host.bootstrap([suite], packages, tarball, variant="extract", options=options)
    root = folder / "root"
    root.mkdir()
    excludes = [f"--exclude=./{path}" for path in _DROP]
    host.run(["tar", "-C", str(root), "--no-same-owner", *excludes, "-xf", str(tarball)])
    tarball.unlink()
    host.run([*_program(root, f"qemu-system-{target}", arch), "--version"])


def _program(root: Path, name: str, arch: str) -> tuple[str, ...]:
    libraries, loader = _LIBRARIES[arch]
    # bookworm's packages put some libraries in /lib, not yet /usr/lib
    folders = [folder for folder in (root / "usr" / libraries, root / libraries) if folder.is_dir()]
    run_by = next((folder / loader for folder in folders if (folder / loader).exists()), root / libraries / loader)
    return (str(run_by), "--library-path", ":".join(map(str, folders)), str(root / "usr/bin" / name))


def _private(version: str, target: str, folder: Path, key: str, arch: str) -> Qemu:
    root = folder / "root"
    system = _program(root, f"qemu-system-{target}", arch)
    share = root / "usr/share"
    return Qemu(
        version=version,
        full_version=_version_of(system),
        system=(*system, "-L", str(share / "qemu"), "-L", str(share / "seabios")),
        img=_program(root, "qemu-img", arch),
        env={"QEMU_MODULE_DIR": str(root / "usr" / _LIBRARIES[arch][0] / "qemu")},
        key=key,
        root=root,
    )


def _host_qemu() -> Qemu | None:
    system, img = shutil.which(f"qemu-system-{NATIVE_TARGET}"), shutil.which("qemu-img")
    if system is None or img is None:
        return None
    full = _version_of((system,))
    return Qemu(".".join(full.split(".")[:2]), full, (system,), (img,), key=host.run([system, "--version"]))


def _number(qemu: Qemu) -> tuple[int, ...]:
    return tuple(int(part) for part in qemu.version.split("."))


def _version_of(system: tuple[str, ...]) -> str:
    said = host.run([*system, "--version"])
    match = re.search(r"version (\d+\.\d+\.\d+)", said)
    if match is None:
        raise LabError(f"{system[-1]} --version says no version: {said!r}")
    return match[1]
