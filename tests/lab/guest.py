# SPDX-License-Identifier: Apache-2.0
"""Guest images: an ext4 root, its kernel and a small initrd, built from Debian packages by a recipe in ``guests/``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import host
from lab.cache import Cache, digest, digest_tree
from lab.errors import LabError

_GUESTS = Path(__file__).parent / "guests"
_RECIPE = 1
#: Fixes owners of an unpacked root without being root.
_FAKEROOT = () if os.geteuid() == 0 else ("fakeroot",)


@dataclass(frozen=True)
class Recipe:
    """What goes into a guest; ``guests/NAME`` holds its ``files/`` and its ``setup.sh``."""

    name: str
    suite: str
    kernel: str
    packages: tuple[str, ...]
    size_mb: int = 1024


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="debian12-amd64",
            suite="bookworm",
            kernel="linux-image-cloud-amd64",
            packages=(
                "systemd",
                "systemd-sysv",
                "udev",
                "kmod",
                "busybox-static",
                "python3-minimal",
                "python3-grpcio",
                "python3-protobuf",
                "python3-pyudev",
                "python3-structlog",
            ),
        ),
    )
}


@dataclass(frozen=True)
class Image:
    """A built guest: the three files a VM boots from."""

    name: str
    root: Path
    kernel: Path
    initrd: Path
    key: str


@contextmanager
def find(cache: Cache, name: str, progress: host.Progress = host.quiet) -> Iterator[Image]:
    """The image of that guest, built the first time. Raises LabError for an unknown name."""
    if name not in RECIPES:
        raise LabError(f"no guest {name}: the lab knows {', '.join(RECIPES)}")
    recipe = RECIPES[name]

    def build(folder: Path) -> None:
        progress(f"building the guest image {name} (about a minute)")
        _build(recipe, folder, progress)

    with cache.entry(f"guest-{name}", digest(_RECIPE, recipe, digest_tree(_GUESTS / name)), build) as entry:
        path = entry.path
        yield Image(name, path / "root.img", path / "vmlinuz", path / "initrd", entry.build_id)


def _build(recipe: Recipe, folder: Path, progress: host.Progress) -> None:
    source = _GUESTS / recipe.name
    tarball = folder / "root.tar"
    # The kernel is unpacked, not installed: its scripts would build an initrd that the lab replaces anyway.
    kernel = (
        'mkdir -m 777 "$1/tmp/k" && cd "$1/tmp/k" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"'
        f' && apt-get -q download $(apt-cache depends {recipe.kernel} | sed -n "s/^ *Depends: //p")'
        ' && dpkg-deb --fsys-tarfile *.deb | tar -C "$1" --keep-directory-symlink -x && rm -r "$1/tmp/k"'
    )
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    options += [
        f"--customize-hook={kernel}",
        f"--customize-hook=sync-in '{source / 'files'}' /",
        f"--customize-hook=copy-in '{source / 'setup.sh'}' /tmp",
        '--customize-hook=chroot "$1" sh /tmp/setup.sh && rm "$1/tmp/setup.sh"',
    ]
    host.bootstrap(recipe.suite, recipe.packages, tarball, variant="essential", options=options)
    progress("writing its root file system")
    files = ["./boot/vmlinuz*", "./boot/initrd"]
    host.run(["tar", "-C", str(folder), "--strip-components=2", "--wildcards", "-xf", str(tarball), *files])
    script = (
        'mkdir "$1/tree" && tar -C "$1/tree" --exclude="./dev/*" --exclude="./boot/*" -xf "$1/root.tar"'
        f' && mke2fs -q -t ext4 -J size=8 -d "$1/tree" "$1/root.img" {recipe.size_mb}M'
    )
    host.run([*_FAKEROOT, "sh", "-c", script, "sh", str(folder)])
    host.run(["rm", "-r", str(tarball), str(folder / "tree")])
