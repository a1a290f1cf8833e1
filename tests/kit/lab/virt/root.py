# SPDX-License-Identifier: Apache-2.0
"""The roots of libvirt hosts: a Debian suite's libvirtd, QEMU and SSH server, ready to start without systemd.

libvirtd asks a QEMU that it does not know for all that it can do, which takes it ten seconds. What it learned is
kept as a layer over the root, with the settings, and holds in the overlays on both, in which the two programs have the
same times.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kit.lab import host
from kit.lab.cache import Cache, digest
from kit.lab.errors import LabError
from kit.lab.virt.daemon import Daemon
from kit.lab.virt.ground import Ground

#: Each suite, and what it carries.
SUITES: Mapping[str, str] = {"sid": "libvirt 12.8, QEMU 11.1", "bookworm": "libvirt 9.0, QEMU 7.2"}

_RECIPE = 1
#: Seconds for the fetch, with a wide margin for a busy machine.
_BUILD = 1800.0
_PACKAGES = (
    "libvirt-daemon-system",
    "libvirt-clients",
    "qemu-system-x86",
    "qemu-utils",
    "openssh-server",
    "openssh-client",
)
#: No systemd, no cgroups, no other user than root, and no daemon that keeps QEMU's output.
_QEMU_CONF = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""
#: What libvirtd tells of the calls of its API that clients make, and nothing else: see ``LibvirtHost.log``.
_LIBVIRTD_CONF = """
auth_unix_ro = "none"
auth_unix_rw = "none"
auth_tcp = "none"
listen_tls = 0
listen_tcp = 1
listen_addr = "0.0.0.0"
log_filters = "1:libvirt-qemu 1:libvirt.domain 4:util 4:rpc"
log_outputs = "1:file:/var/log/libvirt/libvirtd.log 3:stderr"
"""
_SSHD_CONF = """
UsePAM no
StrictModes no
UseDNS no
"""
_SETTINGS: Mapping[str, str] = {
    "etc/libvirt/qemu.conf": _QEMU_CONF,
    "etc/libvirt/libvirtd.conf": _LIBVIRTD_CONF,
    "etc/ssh/sshd_config.d/lab.conf": _SSHD_CONF,
}
_KNOWN = "var/cache/libvirt/qemu/capabilities"


@dataclass(frozen=True)
class Root:
    """A root that hosts share."""

    #: Directories, the upper first.
    layers: tuple[Path, ...]
    #: Identity of the build, for the keys of what is saved on it.
    key: str


@contextmanager
def find(cache: Cache, suite: str, progress: host.Progress = host.quiet) -> Iterator[Root]:
    """Yield the root of that suite, made the first time.

    Raises LabError for an unknown suite.
    """
    if suite not in SUITES:
        raise LabError(f"no libvirt host of {suite}: the lab knows {', '.join(SUITES)}")

    def build(folder: Path) -> None:
        progress(f"fetching a libvirt host of {suite} ({SUITES[suite]}, some minutes)")
        _fetch(suite, folder)

    with cache.entry(f"libvirt-{suite}", digest(_RECIPE, suite, _PACKAGES), build) as entry:

        def learn(folder: Path) -> None:
            progress("letting libvirt learn what its QEMU can do")
            _learn(entry.path / "root", folder)

        with cache.entry(f"libvirt-layer-{suite}", digest(_RECIPE, entry.build_id, _SETTINGS), learn) as known:
            yield Root((known.path / "layer", entry.path / "root"), entry.build_id)


def _fetch(suite: str, folder: Path) -> None:
    tarball = folder / "root.tar"
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info", "icons")]
    host.bootstrap([suite], _PACKAGES, tarball, variant="apt", options=options, timeout=_BUILD)
    root = folder / "root"
    root.mkdir()
    host.run(["tar", "-C", str(root), "--exclude=./dev/*", "--exclude=./var/lib/apt/lists/*", "-xf", str(tarball)])
    tarball.unlink()


def _learn(root: Path, folder: Path) -> None:
    layer, scratch = folder / "layer", folder / "host"
    scratch.mkdir()
    for name, text in _SETTINGS.items():
        (layer / name).parent.mkdir(parents=True, exist_ok=True)
        (layer / name).write_text(text)
    ground = Ground([layer, root], scratch, "learn", [scratch])
    try:
        daemon = Daemon(ground)
        daemon.start()
        done = ground.run(["virsh", "domcapabilities", "--machine", "q35", "--virttype", "qemu"])
        if done.returncode != 0:
            raise LabError(f"libvirt of {root} does not know its QEMU: {done.stderr}")
        daemon.stop()
        shutil.copytree(ground.path(f"/{_KNOWN}"), layer / _KNOWN)
    finally:
        ground.close()
        shutil.rmtree(scratch)
