# SPDX-License-Identifier: Apache-2.0
"""The lab itself: VMs by description."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from kit.lab import accel, guest, host, nested_states, qemu, scratch, states
from kit.lab.cache import Cache
from kit.lab.lives import Lives
from kit.lab.nested import KvmHost
from kit.lab.road import Road
from kit.lab.spec import VmSpec
from kit.lab.vm import Vm

#: States and images that nobody used for so long go by themselves (seconds).
_UNUSED = 14 * 24 * 3600.0


class Lab:
    """Gives running VMs; finds or builds what they need, saying so through ``progress``.

    As a context manager it first drops what nobody used for two weeks, and what killed runs left.
    """

    def __init__(self, progress: host.Progress = host.quiet, cache: Cache | None = None) -> None:
        self._progress = progress
        self._cache = cache or Cache()

    def __enter__(self) -> Self:
        self._cache.prune(_UNUSED)
        scratch.sweep()
        return self

    def __exit__(self, *_exc: object) -> None:
        """Nothing is left to end: each VM ends with its own ``with`` block."""

    def prepare(self, spec: VmSpec) -> None:
        """Build all that ``vm(spec)`` needs, so that the next one takes about a second."""
        with (
            self._ground(spec) as (found, image, accelerator),
            states.find(self._cache, spec, found, image, accelerator, self._progress),
        ):
            pass

    @contextmanager
    def vm(self, spec: VmSpec) -> Iterator[Vm]:
        """A VM restored from the spec's saved state, which is made the first time."""
        with (
            self._ground(spec) as (found, image, accelerator),
            states.find(self._cache, spec, found, image, accelerator, self._progress) as state,
            _folder() as folder,
            states.restore(spec, found, image, accelerator, state.path, folder / "disk.qcow2") as vm,
        ):
            yield vm

    @contextmanager
    def lives(self, spec: VmSpec) -> Iterator[Lives]:
        """A VM that can be restored again, and moved, as often as needed; see ``lab.lives``."""
        with (
            self._ground(spec) as (found, image, accelerator),
            states.find(self._cache, spec, found, image, accelerator, self._progress) as state,
            _folder() as folder,
        ):
            lives = Lives(spec, found, image, accelerator, state.path, folder)
            try:
                yield lives
            finally:
                lives.vm.close()

    @contextmanager
    def road(self, spec: VmSpec, *others: str) -> Iterator[Road]:
        """A VM that can migrate live, to QEMUs of its own version and of the ``others``; see ``lab.road``."""
        with ExitStack() as stack:
            found, image, accelerator = stack.enter_context(self._ground(spec))
            qemus = {spec.qemu: found}
            for version in others:
                other = qemu.find(self._cache, version, spec.arch.target, self._progress)
                qemus[version] = stack.enter_context(other)
            state = stack.enter_context(states.find(self._cache, spec, found, image, accelerator, self._progress))
            disk = stack.enter_context(_folder()) / "disk.qcow2"
            road = Road(states.restore(spec, found, image, accelerator, state.path, disk), qemus, image, disk)
            stack.enter_context(road.vm)
            stack.callback(road.close)
            yield road

    @contextmanager
    def kvm(self, spec: VmSpec) -> Iterator[KvmHost]:
        """A VM under KVM in an emulated host, restored from a saved state that is made the first time.

        It works on any machine; see ``lab.nested``. The -cpu of the spec has to be one that KVM takes: ``host``.
        """
        with nested_states.vm(self._cache, spec, self._progress) as host_of_it:
            yield host_of_it

    @contextmanager
    def boot(self, spec: VmSpec) -> Iterator[Vm]:
        """A VM booted from cold, with the spec's packages (if any) installed after that."""
        with self._ground(spec) as (found, image, accelerator), _folder() as folder:
            disk = folder / "disk.qcow2"
            states.overlay(found, image.root, "raw", disk)
            with states.boot(spec, found, image, accelerator, disk) as vm:
                if spec.debs is not None:
                    states.install(vm, states.debs(spec))
                yield vm

    @contextmanager
    def start(self, spec: VmSpec) -> Iterator[Vm]:
        """A VM whose QEMU has just been started: nothing in the guest has been waited for."""
        with self._ground(spec) as (found, image, accelerator), _folder() as folder:
            disk = folder / "disk.qcow2"
            states.overlay(found, image.root, "raw", disk)
            with Vm(spec, found, image, accelerator, disk) as vm:
                yield vm

    @contextmanager
    def _ground(self, spec: VmSpec) -> Iterator[tuple[qemu.Qemu, guest.Image, str]]:
        with (
            qemu.find(self._cache, spec.qemu, spec.arch.target, self._progress) as found,
            guest.find(self._cache, spec.guest, self._progress) as image,
        ):
            yield found, image, accel.choose(self._cache, found, image, self._progress)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = scratch.make()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
