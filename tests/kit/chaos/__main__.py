# SPDX-License-Identifier: Apache-2.0
"""Runs the chaos machine and writes ``build/chaos.json``; status 1 if anything was violated."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kit.chaos.choice import Shape
from kit.chaos.home import Home, QmpHome
from kit.chaos.libvirt_home import LibvirtHome
from kit.chaos.report import document
from kit.chaos.run import Run
from kit.chaos.world import World
from kit.e2e import domains
from kit.e2e.machine import ROOT, SPEC
from kit.e2e.platforms import SlotOf, by_acpi_path, by_two_threads
from kit.lab import Cache, Lab, LabError, VmSpec
from kit.lab import report as files
from kit.lab.virt import client, guests
from kit.lab.virt.domain_xml import DomainSpec
from kit.lab.virt.libvirt_host import LibvirtHost

OUTPUT, KEPT = ROOT / "build" / "chaos.json", ROOT / "build" / "chaos"
#: Root's runtime directory.
_ROOTS = Path("/run/vcpuctl")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Guest:
    """A VM to try, and what makes its home. It has room for many plugs: under TCG a QEMU process has a budget."""

    about: str
    home: Callable[[Lab, Say], AbstractContextManager[Home]]


def _of_qmp(spec: VmSpec, shape: Shape, slot_of: SlotOf) -> Guest:
    @contextmanager
    def home(lab: Lab, _say: Say) -> Iterator[Home]:
        with lab.lives(spec) as lives:
            yield QmpHome(lives, shape, slot_of, traced=bool(spec.arch.trace))

    return Guest(spec.guest, home)


@contextmanager
def _of_libvirt(suite: str, spec: DomainSpec, _lab: Lab, say: Say) -> Iterator[Home]:
    with ExitStack() as stack:
        cache = Cache()
        environment = stack.enter_context(client.find(cache, say))
        host = stack.enter_context(LibvirtHost(suite, cache=cache, progress=say))
        saved = stack.enter_context(guests.ready(cache, suite, spec, SPEC.debs, progress=say))
        yield LibvirtHome(host, spec, saved, environment)


_Q35 = replace(SPEC, smp="1,maxcpus=64,sockets=2,cores=16,threads=2")
_Q35_SHAPE = Shape(threads=1, slots=64)
_DOMAIN = replace(domains.SPEC, max_vcpus=64, topology=(2, 1, 16, 2))
GUESTS: Mapping[str, Guest] = {
    "q35": _of_qmp(_Q35, _Q35_SHAPE, by_acpi_path),
    "debian13": _of_qmp(replace(_Q35, guest="debian13-amd64"), _Q35_SHAPE, by_acpi_path),
    # A saved state of POWER guests wakes up on 11.1 alone. XICS, since a VM with XIVE cannot be moved once a core has
    # gone that was not the last to come (docs/testing.md).
    "pseries": _of_qmp(
        replace(
            SPEC,
            qemu="11.1",
            machine="pseries,x-vof=on,ic-mode=xics",
            guest="debian12-ppc64el",
            smp="2,maxcpus=64,sockets=1,cores=32,threads=2",
        ),
        # a snapshot is a migration of another kind; and its guest calls no CPU by a name
        Shape(threads=2, slots=32, without=frozenset({"refuse-eject", "revert", "foreign-name"})),
        by_two_threads,
    ),
    "libvirt": Guest(f"libvirt of sid, {_DOMAIN.guest}", partial(_of_libvirt, "sid", _DOMAIN)),
}


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="where all choices come from (default: 1)")
    parser.add_argument("--ops", type=int, default=30, help="how many operations (default: 30)")
    parser.add_argument("--first", type=int, default=1, help="go on with an interrupted run at this one (default: 1)")
    parser.add_argument("--guest", choices=tuple(GUESTS), default="q35", help="the machine (default: q35)")
    args = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", file=sys.stderr, flush=True)

    guest = GUESTS[args.guest]
    kept = KEPT / f"{args.guest}-{args.seed}"
    shutil.rmtree(kept, ignore_errors=True)
    with Lab(progress=say) as lab, tempfile.TemporaryDirectory(prefix="chaos-") as base:
        # what vcpuctl's processes leave behind lies here, where nobody else's does
        runtime, temporary = _private(Path(base))
        with guest.home(lab, say) as home:
            run = Run(World(home), args.seed, kept, (runtime, temporary), say)
            about = {
                "commit": files.commit(ROOT),
                "qemu": run.world.qemu_version(),
                "guest": f"{args.guest}, {guest.about}",
                "seed": args.seed,
                "turns": [args.first, args.ops],
            }

            def write() -> None:
                files.write(
                    OUTPUT, document({**about, "held": dict(run.world.held)}, run.report, time.monotonic() - began)
                )

            try:
                run.turns(args.first, args.ops, write)
            finally:
                home.close()
    found = run.report
    say(f"{found.operations} operations, faults {dict(found.faults)}, {len(found.environment)} events of QEMU's own")
    for violation in found.violations:
        say(f"violated in turn {violation['turn']}: {violation['what']}")
    say(f"{len(found.violations)} violations; written: {OUTPUT.relative_to(ROOT)}")
    return 1 if found.violations else 0


def _private(base: Path) -> tuple[Path, Path]:
    """The runtime directory and the temporary one, set for all processes to come."""
    runtime, temporary = base / "run", base / "tmp"
    for folder in (runtime, runtime / "vcpuctl", temporary):
        folder.mkdir(mode=0o700)
    os.environ |= {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(temporary)}
    tempfile.tempdir = str(base)  # this process's own
    if os.geteuid() == 0:  # root's is the system's own, which this run alone sees like this (_apart)
        _ROOTS.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(["mount", "--bind", runtime / "vcpuctl", _ROOTS], check=True)
        return _ROOTS, temporary
    return runtime / "vcpuctl", temporary


def _apart() -> None:
    """Go on in mounts of this run's own: what root's other vcpuctls leave behind is not this run's."""
    spaces = (os.stat(f"/proc/{pid}/ns/mnt").st_ino for pid in ("self", os.getppid()))
    if os.geteuid() == 0 and len(set(spaces)) == 1:
        os.execvp("unshare", ["unshare", "--mount", "--", sys.executable, "-m", "kit.chaos", *sys.argv[1:]])


if __name__ == "__main__":
    try:
        _apart()
        sys.exit(main())
    except LabError as error:
        sys.exit(f"chaos: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
