# SPDX-License-Identifier: Apache-2.0
"""Saved hosts with a VM under KVM in them (``lab.nested``), and what they are made of.

The VM is booted once, then stopped and saved with its host around it. While its vCPUs stand still no CPU of the host
is in guest mode, so what is saved is an ordinary VM. To go on takes seconds; the boot takes more than a minute.
On POWER QEMU does not save what it knows of its guest's guests (``Emulated.saved``), so there the VM boots each time.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kit.lab import accel, emulated, guest, host, nested, qemu, scratch, states
from kit.lab.cache import Cache, Entry, digest, digest_tree
from kit.lab.emulated import Emulated
from kit.lab.errors import LabError
from kit.lab.guest import Image
from kit.lab.nested import KvmHost, RestoredHost
from kit.lab.qemu import Qemu
from kit.lab.spec import VmSpec
from kit.lab.vm import Vm

_RECIPE = 2
_RAW = "disk.img"
#: Seconds, with wide margins: for the VM's boot, and for it to go on.
_BOOT, _RESTORED = 900.0, 120.0
_RELAY = Path(__file__).with_name("relay.py")


@contextmanager
def vm(cache: Cache, spec: VmSpec, progress: host.Progress = host.quiet) -> Iterator[KvmHost]:
    """The spec's VM under KVM, running, in its host. The saved state is made the first time."""
    with ExitStack() as stack:
        parts = _Parts.find(cache, spec, stack, progress)
        saved = stack.enter_context(parts.saved(cache, progress)).path if parts.kind.saved else None
        folder = scratch.make()
        stack.callback(shutil.rmtree, folder)
        below = stack.enter_context(parts.restore(saved or parts.below.path, folder / states.DISK))
        whole = KvmHost(below) if saved is None else RestoredHost(below)
        if saved is None:
            parts.boot(whole, progress)
        else:
            whole.guest = parts.start(whole)
        stack.callback(whole.guest.leave)  # it ends with its host
        if saved is not None:
            whole.guest.qmp.execute("cont")
            whole.guest.wait_shell(_RESTORED)
        yield whole


@dataclass(frozen=True)
class _Parts:
    """What a VM under KVM is made of: ``spec``, ``qemu`` and ``image`` are the VM's, by their paths in the host.

    ``outer`` is the host, with what that is made of.
    """

    kind: Emulated
    spec: VmSpec
    qemu: Qemu
    image: Image
    outer: VmSpec
    outer_qemu: Qemu
    outer_image: Image
    #: The host's saved state without a VM.
    below: Entry
    key: str

    @classmethod
    def find(cls, cache: Cache, spec: VmSpec, stack: ExitStack, progress: host.Progress) -> _Parts:
        """Find or make them. They are held until the stack ends."""
        kind = emulated.host_for(spec)
        spec = replace(spec, kernel_args=f"{kind.quiet} {spec.kernel_args}".strip())
        hold = stack.enter_context
        image = hold(guest.find(cache, spec.guest, progress))
        qemus = hold(_qemus(cache, kind, progress))
        root, root_key = hold(_root(cache, spec, kind, image, progress))
        bare = replace(kind.spec, debs=spec.debs)
        outer_qemu = hold(qemu.find(cache, bare.qemu, bare.arch.target, progress))
        outer_image = hold(guest.find(cache, bare.guest, progress))
        below = hold(states.find(cache, bare, outer_qemu, outer_image, "tcg", progress))
        own = hold(_private(cache, spec.qemu, kind, progress)).moved(nested.QEMUS / spec.qemu)
        files = (qemus.path / _RAW, root)
        drives = emulated.drives(*(f"driver=raw,file.driver=file,file.filename={path}" for path in files))
        moved = replace(image, root=nested.ROOT, kernel=nested.KERNEL, initrd=nested.INITRD)
        builds = (below.build_id, qemus.build_id, root_key, image.key, digest_tree(_RELAY))
        return cls(
            kind=kind,
            spec=spec,
            qemu=own,
            image=moved,
            outer=replace(bare, extra_args=drives),
            outer_qemu=outer_qemu,
            outer_image=outer_image,
            below=below,
            key=digest(_RECIPE, builds, asdict(spec)),
        )

    def restore(self, state: Path, disk: Path) -> Vm:
        """The host from that state, on a new overlay at ``disk``."""
        return states.restore(self.outer, self.outer_qemu, self.outer_image, "tcg", state, disk)

    def start(self, place: KvmHost) -> Vm:
        """The VM in that host."""
        return Vm(self.spec, self.qemu, self.image, "kvm", nested.DISK, place=place)

    @contextmanager
    def saved(self, cache: Cache, progress: host.Progress) -> Iterator[Entry]:
        """The saved host with the VM in it, which stands still."""

        def build(folder: Path) -> None:
            with self.restore(self.below.path, folder / states.DISK) as here:
                place = KvmHost(here)
                self.boot(place, progress, once=True)
                place.guest.qmp.execute("stop")
                place.guest.leave()
                place.forget()
                progress("saving the emulated host")
                here.save(folder / states.RAM)
            states.rebase(self.outer_qemu, folder / states.DISK, self.below.path / states.DISK)

        kind = digest({**asdict(self.spec), "debs": self.spec.debs and self.spec.debs.name})
        with cache.entry(f"nested-{kind}", self.key, build) as entry:
            yield entry

    def boot(self, place: KvmHost, progress: host.Progress, *, once: bool = False) -> None:
        """Boot the VM in that host, up to where the spec's packages are ready."""
        version = self.qemu.full_version
        progress(f"booting {self.spec.guest} under KVM in an emulated host, QEMU {version}{' (once)' * once}")
        place.prepare(self.kind.module, self.qemu.img)
        place.guest = vm = self.start(place)
        try:
            states.settle(vm, _BOOT)
            if self.spec.debs is not None:
                states.wait_ready(vm)
            place.speak()
        except BaseException:
            vm.leave()
            raise


@contextmanager
def _private(cache: Cache, version: str, kind: Emulated, progress: host.Progress) -> Iterator[Qemu]:
    """A QEMU that runs in that host, for a VM under its KVM."""
    arch = kind.spec.arch
    if version not in kind.qemus:
        raise LabError(f"no QEMU {version} in the emulated host of {arch.name}: it has {', '.join(kind.qemus)}")
    with qemu.private(cache, version, arch.target, progress, arch.name) as found:
        yield found


@contextmanager
def _qemus(cache: Cache, kind: Emulated, progress: host.Progress) -> Iterator[Entry]:
    """A disk with the QEMUs of all versions, each in its private root, for the host to mount."""
    arch = kind.spec.arch
    needed = ("qemu-img", f"qemu-system-{arch.target}")

    def unneeded(folder: str, names: Sequence[str]) -> list[str]:
        """Programs that the host does not run."""
        if not folder.endswith("/usr/bin"):
            return [name for name in names if folder.endswith("/usr") and name in ("libexec", "sbin")]
        return [name for name in names if name not in needed]

    with ExitStack() as stack:
        found = {version: stack.enter_context(_private(cache, version, kind, progress)) for version in kind.qemus}

        def build(folder: Path) -> None:
            progress("putting all QEMUs on a disk for the emulated host")
            for version, each in found.items():
                assert each.root is not None
                shutil.copytree(each.root, folder / "tree" / version, symlinks=True, ignore=unneeded)
            argv = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(folder / "tree")]
            host.run([*argv, str(folder / _RAW), f"{emulated.QEMUS_MB}M"])
            shutil.rmtree(folder / "tree")

        key = digest(_RECIPE, emulated.QEMUS_MB, {version: each.key for version, each in found.items()})
        yield stack.enter_context(cache.entry(f"nested-qemus-{arch.name}", key, build))


@contextmanager
def _root(
    cache: Cache, spec: VmSpec, kind: Emulated, image: Image, progress: host.Progress
) -> Iterator[tuple[Path, str]]:
    """The VM's root disk and its key: the guest's, trimmed, with the spec's packages installed, if it has any.

    Its kernel and initrd are on it as well. The packages are installed in a VM like any other of the lab, without KVM:
    so it is quicker.
    """
    if guest.recipe_of(spec.guest).size_mb != emulated.ROOT_MB:
        raise LabError(f"{spec.guest}: the emulated host takes disks of {emulated.ROOT_MB} MB")
    plain = VmSpec(guest=spec.guest, debs=spec.debs, packages=spec.packages, ready=spec.ready, **kind.plain)
    files = states.debs(plain)

    def build(folder: Path) -> None:
        with ExitStack() as stack:
            found = stack.enter_context(qemu.find(cache, plain.qemu, plain.arch.target, progress))
            how = accel.choose(cache, found, image, progress)
            booted = stack.enter_context(states.find(cache, plain.without_debs(), found, image, how, progress))
            progress(f"preparing a disk for the emulated host: {', '.join([spec.guest, *files])} (once)")
            overlay = folder / "overlay"
            with states.restore(plain, found, image, how, booted.path, overlay) as vm:
                if files:
                    states.install(vm, files)
                vm.shell(nested.TRIM, _RESTORED)
                vm.shell("(busybox usleep 1000; systemctl poweroff) >/dev/null 2>&1 </dev/null &", _RESTORED)
                vm.qmp.wait_closed(_RESTORED)
            host.run([*found.img, "convert", "-O", "raw", str(overlay), str(folder / _RAW)])
            overlay.unlink()
            for source, place in ((image.kernel, nested.KERNEL), (image.initrd, nested.INITRD)):
                _put(source, folder / _RAW, f"/{place.relative_to(nested.FILES)}")

    contents = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    key = digest(_RECIPE, image.key, nested.TRIM, contents)
    with cache.entry(f"nested-root-{spec.guest}{'' if files else '-bare'}", key, build) as entry:
        yield entry.path / _RAW, entry.build_id


def _put(source: Path, disk: Path, name: str) -> None:
    """Copy a file onto a disk that nobody uses. Raises LabError."""
    host.run(["debugfs", "-w", "-R", f"write {source} {name}", str(disk)])
    copy = disk.with_name("copy")
    host.run(["debugfs", "-R", f"dump {name} {copy}", str(disk)])
    if copy.read_bytes() != source.read_bytes():  # debugfs fails in silence
        raise LabError(f"{disk}: {name} could not be put there")
    copy.unlink()
