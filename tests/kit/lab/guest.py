# SPDX-License-Identifier: Apache-2.0
"""Guest images: an ext4 root, its kernel and a small initrd, built from Debian packages by a recipe in ``guests/``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kit.lab import foreign, host
from kit.lab.arch import ARCHES, NATIVE, Arch
from kit.lab.cache import Cache, digest, digest_tree
from kit.lab.errors import LabError

_FILES = Path(__file__).parent / "guests" / "debian"
_RECIPE = 2
#: Seconds for a build, with a wide margin for emulation on a busy machine.
_BUILD = 1800.0
#: Fixes owners of an unpacked root without being root.
_FAKEROOT = () if os.geteuid() == 0 else ("fakeroot",)
_SYSTEM = ("systemd", "systemd-sysv", "udev", "kmod", "busybox-static", "python3-minimal")
_PACKAGES = (
    *_SYSTEM,
    "python3-grpcio",
    "python3-protobuf",
    "python3-pyudev",
    "python3-structlog",
)


#: A host of VMs, for ``lab.nested``: what the package vcpu-host depends on, and no QEMU (the lab brings its own).
_HOST_PACKAGES = ("python3-grpcio", "python3-protobuf", "python3-rich", "python3-structlog")


@dataclass(frozen=True)
class Recipe:
    """What goes into a guest, beside ``guests/debian``: its ``files/`` and its ``setup.sh``."""

    name: str
    suite: str
    arch: Arch
    kernel: str
    packages: tuple[str, ...] = _PACKAGES
    #: Where the kernel comes from, if not from the suite itself.
    kernel_suite: str = ""
    #: A package that is unpacked for its firmware images alone, and their paths: code, then variables.
    firmware: str = ""
    firmware_images: tuple[str, ...] = ()
    size_mb: int = 1024
    #: Whether its kernel has CPUs to plug only where it recognises a hypervisor: see ``lab.spec``.
    wants_hypervisor: bool = False


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("debian12-amd64", "bookworm", ARCHES["amd64"], "linux-image-cloud-amd64"),
        # with QEMU's own agent, for a comparison
        Recipe(
            "debian12-ga-amd64",
            "bookworm",
            ARCHES["amd64"],
            "linux-image-cloud-amd64",
            (*_PACKAGES, "qemu-guest-agent"),
        ),
        # as a cloud's image has it: to be given vcpud by Ansible, by cloud-init and by pip
        Recipe(
            "debian12-cloud-amd64",
            "bookworm",
            ARCHES["amd64"],
            "linux-image-cloud-amd64",
            (*_PACKAGES, "cloud-init", "mount", "python3-apt", "python3-venv"),
        ),
        # the kernels that an installation has: with them udev loads modules for each new CPU
        Recipe("debian13-amd64", "trixie", ARCHES["amd64"], "linux-image-amd64", wants_hypervisor=True),
        Recipe("sid-amd64", "sid", ARCHES["amd64"], "linux-image-amd64", (*_PACKAGES, "mount"), wants_hypervisor=True),
        Recipe("kvm-host-amd64", "trixie", ARCHES["amd64"], "linux-image-cloud-amd64", (*_SYSTEM, *_HOST_PACKAGES)),
        Recipe("debian12-ppc64el", "bookworm", ARCHES["ppc64el"], "linux-image-powerpc64le"),
        Recipe(
            "kvm-host-ppc64el",
            "bookworm",
            ARCHES["ppc64el"],
            "linux-image-powerpc64le",
            (*_SYSTEM, *_HOST_PACKAGES),
        ),
        # a kernel that has an SMT mode on POWER (6.6 and newer)
        Recipe(
            "debian12-ppc64el-backports",
            "bookworm",
            ARCHES["ppc64el"],
            "linux-image-powerpc64le",
            kernel_suite="bookworm-backports",
        ),
        Recipe("debian12-s390x", "bookworm", ARCHES["s390x"], "linux-image-s390x"),
        Recipe("debian12-arm64", "bookworm", ARCHES["arm64"], "linux-image-cloud-arm64"),
        # the first release with this architecture is still in the making
        Recipe(
            "sid-loong64",
            "sid",
            ARCHES["loong64"],
            "linux-image-loong64",
            (*_PACKAGES, "mount"),
            firmware="qemu-efi-loongarch64",
            firmware_images=tuple(f"usr/share/qemu-efi-loongarch64/QEMU_{part}.fd" for part in ("EFI", "VARS")),
        ),
    )
}


def recipe_of(name: str) -> Recipe:
    """The recipe of that guest. Raises LabError for an unknown name."""
    if name not in RECIPES:
        raise LabError(f"no guest {name}: the lab knows {', '.join(RECIPES)}")
    return RECIPES[name]


def arch_of(name: str) -> Arch:
    """The architecture of that guest. Raises LabError for an unknown name."""
    return recipe_of(name).arch


@dataclass(frozen=True)
class Image:
    """A built guest: the files a VM boots from. ``firmware`` is empty where the kernel is started directly."""

    name: str
    root: Path
    kernel: Path
    initrd: Path
    firmware: tuple[Path, ...]
    key: str


@contextmanager
def find(cache: Cache, name: str, progress: host.Progress = host.quiet) -> Iterator[Image]:
    """The image of that guest, built the first time. Raises LabError for an unknown name."""
    recipe = recipe_of(name)
    arch = recipe.arch

    def build(folder: Path) -> None:
        foreign.enable(cache, arch, progress)
        duration = "about a minute" if arch.name == NATIVE else "some minutes: its programs are emulated"
        progress(f"building the guest image {name} ({duration})")
        _build(recipe, folder, progress)

    with cache.entry(f"guest-{name}", _key(recipe), build) as entry:
        path = entry.path
        firmware = tuple(path / Path(image).name for image in recipe.firmware_images)
        yield Image(name, path / "root.img", path / "vmlinuz", path / "initrd", firmware, entry.build_id)


def _key(recipe: Recipe) -> str:
    # what goes into the image, also of the architecture: the rest is the command line's
    arch = (recipe.arch.name, recipe.arch.modules, recipe.arch.shell)
    image = replace(recipe, arch=ARCHES[NATIVE], wants_hypervisor=False)
    return digest(_RECIPE, asdict(image), arch, digest_tree(_FILES))


def _build(recipe: Recipe, folder: Path, progress: host.Progress) -> None:
    tarball = folder / "root.tar"
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    # The kernel is unpacked, not installed: its scripts would build an initrd that the lab replaces anyway.
    # What it depends on may be a meta-package in its turn.
    release = f"-o APT::Default-Release={recipe.kernel_suite or recipe.suite}"
    depends = f"apt-cache {release} depends --recurse --important {recipe.kernel}"
    names = f"{depends} | sed -n 's/^ *Depends: \\(linux-[a-z].*\\)/\\1/p'"
    options.append(_unpack(f"$({names} | sort -u)", release))
    if recipe.firmware:
        options.append(_unpack(recipe.firmware))
    settings = f"MODULES='{' '.join(recipe.arch.modules)}' SHELL_TTY={recipe.arch.shell}"
    options += [
        f"--customize-hook=sync-in '{_FILES / 'files'}' /",
        f"--customize-hook=copy-in '{_FILES / 'setup.sh'}' /tmp",
        f'--customize-hook=chroot "$1" env {settings} sh /tmp/setup.sh && rm "$1/tmp/setup.sh"',
    ]
    if recipe.arch.name != NATIVE:
        options += host.foreign_options(recipe.arch.name)
    suites = [recipe.suite, *([recipe.kernel_suite] if recipe.kernel_suite else [])]
    host.bootstrap(suites, recipe.packages, tarball, variant="essential", options=options, timeout=_BUILD)
    progress("writing its root file system")
    host.run(["tar", "-C", str(folder), "--strip-components=2", "--wildcards", "-xf", str(tarball), "./boot/*"])
    for image in recipe.firmware_images:
        depth = image.count("/") + 1
        host.run(["tar", "-C", str(folder), f"--strip-components={depth}", "-xf", str(tarball), f"./{image}"])
    script = (
        'mkdir "$1/tree" && tar -C "$1/tree" --exclude="./dev/*" --exclude="./boot/*" -xf "$1/root.tar"'
        f' && mke2fs -q -t ext4 -J size=8 -d "$1/tree" "$1/root.img" {recipe.size_mb}M'
    )
    host.run([*_FAKEROOT, "sh", "-c", script, "sh", str(folder)])
    host.run(["rm", "-r", str(tarball), str(folder / "tree")])


def _unpack(packages: str, options: str = "") -> str:
    return (
        '--customize-hook=mkdir -m 777 "$1/tmp/k" && cd "$1/tmp/k" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"'
        f" && apt-get -q {options} download {packages}"
        ' && for deb in *.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -C "$1" --keep-directory-symlink -x; done'
        ' && rm -r "$1/tmp/k"'
    )
