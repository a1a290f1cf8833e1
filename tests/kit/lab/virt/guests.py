# SPDX-License-Identifier: Apache-2.0
"""Domains with a guest, restored from a state that was saved once: by libvirt, of a guest that it booted.

As in ``lab.states`` a state is a disk's overlay and the rest of the machine, and states are layered:
image <- booted <- with vcpud installed. A state serves domains of any name, on any host of its suite.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from xml.sax.saxutils import escape

from kit.lab import guest, host, states
from kit.lab.cache import Cache, Entry, digest
from kit.lab.errors import LabError, WaitTimeoutError
from kit.lab.guest import Image
from kit.lab.spec import AGENT_PORT, AGENT_READY, VmSpec
from kit.lab.virt import root, save_image
from kit.lab.virt.domain import Domain
from kit.lab.virt.domain_xml import DomainSpec, Files, command_line, xml
from kit.lab.virt.ground import OWN
from kit.lab.virt.libvirt_host import LibvirtHost

_RECIPE = 1
#: The domain whose state is saved; others take its place.
_MODEL = "model"
_DISK, _STATE = "disk.qcow2", "state"
#: Seconds, with wide margins for TCG on a busy machine.
_BOOT, _INSTALL, _READY, _MOVE = 900.0, 600.0, 300.0, 300.0


@contextmanager
def restored(
    on: LibvirtHost, spec: DomainSpec, debs: Path | None, *, progress: host.Progress = host.quiet
) -> Iterator[Domain]:
    """A domain of that spec on that host, restored, with vcpud of the packages in ``debs`` up (None: without vcpud).

    It is defined there too. Its disk lies in the host's ``shared`` directory, if it has one. When the ``with`` ends, so
    does the domain, wherever it is.
    """
    with ready(on.cache, on.suite, spec, debs, progress=progress) as (state, image):
        domain = restore(on, spec, state, image)
        try:
            yield domain
        finally:
            domain.end()


@contextmanager
def ready(
    cache: Cache, suite: str, spec: DomainSpec, debs: Path | None, *, progress: host.Progress = host.quiet
) -> Iterator[tuple[Entry, Image]]:
    """The saved state of that spec, made the first time, and the image that it stands on."""
    with (
        guest.find(cache, spec.guest, progress) as image,
        _booted(cache, suite, _model(spec), image, progress) as booted,
    ):
        if debs is None:
            yield booted, image
        else:
            with _installed(cache, suite, _model(spec), image, debs, booted, progress) as installed:
                yield installed, image


def restore(on: LibvirtHost, spec: DomainSpec, state: Entry, image: Image) -> Domain:
    """Define and restore a domain of that spec from a state of it. Raises LabError."""
    disk = _place(on, spec) / _DISK
    _overlay(on, state.path / _DISK, "qcow2", disk)
    files = Files(OWN / spec.name, disk, image)
    on.define(xml(spec, files))
    on.forget_log(spec.name)
    saved = on.folder / f"{spec.name}.saved"
    model = _model(spec)

    def change(text: str) -> str:
        for old, new in (
            (f"<name>{model.name}</name>", f"<name>{escape(spec.name)}</name>"),
            (model.id, spec.id),
            (f"{OWN}/{model.name}/{_DISK}", str(disk)),
            (f"{OWN}/{model.name}/", f"{OWN}/{spec.name}/"),
        ):
            text = text.replace(old, new)
        head, end, rest = text.rpartition("</domain>")
        return head + command_line(spec, files) + end + rest

    save_image.rewrite(state.path / _STATE, saved, change)
    on.ask("restore", str(saved), "--running", timeout=_MOVE)
    saved.unlink()
    domain = Domain(on, spec)
    try:
        domain.wait_shell(_READY)
    except BaseException:
        domain.close()
        raise
    return domain


def boot(on: LibvirtHost, spec: DomainSpec, image: Image) -> Domain:
    """Define a domain of that spec on a new disk, boot it and wait until systemd in it has nothing left to start."""
    disk = _place(on, spec) / _DISK
    _overlay(on, image.root, "raw", disk)
    on.define(xml(spec, Files(OWN / spec.name, disk, image)))
    on.start(spec.name)
    domain = Domain(on, spec)
    try:
        domain.wait_shell(_BOOT)
        domain.shell(states.SETTLED, _BOOT)
    except BaseException:
        domain.close()
        raise
    return domain


def install(domain: Domain, debs: Path) -> None:
    """Install vcpud's packages in the running guest, and wait until its end of the channel is open. Raises LabError."""
    domain.shell("mkdir -p /run/lab/debs")
    for name, data in states.debs(VmSpec(debs=debs)).items():
        domain.put(data, f"/run/lab/debs/{name}")
    domain.shell("dpkg -i /run/lab/debs/*.deb && rm -r /run/lab/debs", _INSTALL)
    domain.shell(f"until {AGENT_READY}; do sleep 0.5; done", _READY)
    wait_channel(domain)


def wait_channel(domain: Domain, timeout: float = _READY) -> None:
    """Wait until the guest has vcpud's channel open, by libvirt's word. Raises WaitTimeoutError."""
    until = time.monotonic() + timeout
    while channel_state(domain) != "connected":
        if time.monotonic() > until:
            raise WaitTimeoutError(f"nobody in the guest opened {AGENT_PORT} within {timeout:.0f} s")
        # it may have been opened before anybody waited for that: so not for long, and libvirt is asked once more
        domain.host.virsh("qemu-monitor-event", domain.name, "--event", "VSERPORT_CHANGE", "--timeout", "1")


def channel_state(domain: Domain) -> str:
    """Return what libvirt says of the guest's end of vcpud's channel: connected, disconnected, or "" without one."""
    target = domain.host.xml(domain.name).find(f"devices/channel/target[@name='{AGENT_PORT}']")
    return "" if target is None else target.attrib.get("state", "")


def _model(spec: DomainSpec) -> DomainSpec:
    """The spec whose state serves that one: the rest is put into the state's XML, and is no part of what QEMU saves."""
    return replace(spec, name=_MODEL, uuid="", record=False, arguments=())


def _place(on: LibvirtHost, spec: DomainSpec) -> Path:
    """Where the domain's disk lies, as the host sees it."""
    on.folder_of(spec.name)
    if on.shared is None:
        return OWN / spec.name
    folder = on.shared / spec.name
    folder.mkdir(exist_ok=True)
    return folder


def _overlay(on: LibvirtHost, backing: Path, backing_format: str, disk: Path) -> None:
    line = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(backing), "-F", backing_format, str(disk)]
    done = on.ground.run(line)
    if done.returncode != 0:
        raise LabError(f"{disk}: {done.stderr}")


@contextmanager
def _booted(cache: Cache, suite: str, spec: DomainSpec, image: Image, progress: host.Progress) -> Iterator[Entry]:
    def build(folder: Path) -> None:
        progress(f"booting {spec.guest} under libvirt of {suite} (once)")
        with LibvirtHost(suite, cache=cache, progress=progress) as on, boot(on, spec, image) as domain:
            _save(domain, folder)

    with root.find(cache, suite, progress) as found:
        key = digest(_RECIPE, xml(spec, _files(spec, image)), image.key, found.key)
        with cache.entry(f"libvirt-booted-{_kind(suite, spec)}", key, build) as entry:
            yield entry


@contextmanager
def _installed(
    cache: Cache, suite: str, spec: DomainSpec, image: Image, debs: Path, booted: Entry, progress: host.Progress
) -> Iterator[Entry]:
    files = states.debs(VmSpec(debs=debs))

    def build(folder: Path) -> None:
        progress(f"installing {', '.join(files)} in a guest under libvirt of {suite} (once)")
        with LibvirtHost(suite, cache=cache, progress=progress) as on, restore(on, spec, booted, image) as domain:
            install(domain, debs)
            _save(domain, folder)

    key = digest(booted.build_id, {name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    with cache.entry(f"libvirt-installed-{_kind(suite, spec)}-{debs.name}", key, build) as entry:
        yield entry


def _save(domain: Domain, folder: Path) -> None:
    """Save the domain, which ends it, with its disk into that directory."""
    on, name = domain.host, domain.name
    domain.shell("sync", _READY)
    on.ask("save", name, f"{OWN}/{name}/{_STATE}", timeout=_MOVE)
    for file in (_DISK, _STATE):
        shutil.move(on.folder_of(name) / file, folder / file)


def _files(spec: DomainSpec, image: Image) -> Files:
    return Files(OWN / spec.name, OWN / spec.name / _DISK, image)


def _kind(suite: str, spec: DomainSpec) -> str:
    return f"{suite}-{digest(asdict(spec))}"
