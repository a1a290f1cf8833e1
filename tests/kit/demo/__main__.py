# SPDX-License-Identifier: Apache-2.0
"""Boots a VM with 16 possible vCPUs and one present, resizes it with ``vcpuctl``, and proves in the guest what came.

Everything is shown as a user would type it. Ends with status 0 only if the guest, asked over its serial console and not
through the agent, agrees with every step, and the end equals the start.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.lab import Lab, LabError, Vm, VmSpec

ROOT = Path(__file__).resolve().parents[3]
VCPUCTL = str(Path(sys.executable).parent / "vcpuctl")
SPEC = VmSpec(debs=ROOT / "build" / "deb")

#: Plugged first, although slots 1 and 2 are free.
OUT_OF_ORDER = 5


class DemoError(Exception):
    """Something did not come out as promised."""


class Stage:
    """Where the demo talks: headings with the time, commands with their output, and a clock for every phase."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.phases: list[tuple[str, float]] = []
        self._colour = sys.stdout.isatty()

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"{self._mark('36', f'[{time.monotonic() - self._began:6.1f} s]')} {text}", flush=True)

    def command(self, words: str) -> None:
        """A command as one would type it."""
        print(self._mark("1", f"\n$ {words}"), flush=True)

    def _mark(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Take the time of a phase."""
        began = time.monotonic()
        yield
        self.phases.append((name, time.monotonic() - began))


def vcpuctl(stage: Stage, vm: Vm, *words: str) -> None:
    """Run ``vcpuctl`` for people to see; DemoError if it does not end with 0."""
    stage.command(f"vcpuctl --qmp {vm.qmp_socket} {shlex.join(words)}")
    ended = subprocess.run([VCPUCTL, "--qmp", str(vm.qmp_socket), *words], check=False, timeout=180)
    if ended.returncode != 0:
        raise DemoError(f"vcpuctl {shlex.join(words)} ended with status {ended.returncode}")


def slots(vm: Vm) -> list[dict[str, Any]]:
    """The map, for programs."""
    argv = [VCPUCTL, "--qmp", str(vm.qmp_socket), "-o", "json", "list"]
    ended = subprocess.run(argv, check=True, timeout=60, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(ended.stdout)
    return [_lasting(slot) for slot in document["slots"]]


def _lasting(slot: dict[str, Any]) -> dict[str, Any]:
    """A slot without what is new in every QEMU thread."""
    return {**slot, "threads": [{**thread, "host_tid": None} for thread in slot["threads"]]}


def run_on_each(stage: Stage, vm: Vm) -> None:
    """Run a loop on every new CPU, pinned, and show where the kernel says it ran; DemoError if elsewhere."""
    stage.say("running a loop on each new CPU in the guest (over its console, not through the agent)")
    cpus = vm.guest_cpus()
    for slot in slots(vm):
        thread = slot["threads"][0]
        number = thread["guest_cpu"]
        if number in (None, 0):
            continue
        name = f"cpu{number}"
        # Field 39 of /proc/PID/stat is the CPU that it ran on last (proc(5)).
        loop = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; cut -d' ' -f39 /proc/$$/stat"
        ran_on = vm.shell(f"taskset -c {number} sh -c {shlex.quote(loop)}", timeout=60).strip()
        seen = cpus[name]
        print(f"  slot {slot['slot']:2} -> {name} (APIC id {seen['apicid']}): ran on CPU {ran_on}", flush=True)
        if ran_on != str(number) or seen["apicid"] != slot["slot"]:
            raise DemoError(f"slot {slot['slot']} was to be {name}, but the guest says otherwise")


def tour(stage: Stage, vm: Vm) -> None:
    """The demo proper, on a VM that runs."""
    before, guest_before = slots(vm), vm.guest_cpus()
    vcpuctl(stage, vm, "list")
    with stage.phase(f"plug slot {OUT_OF_ORDER}, out of order"):
        vcpuctl(stage, vm, "plug", "--slot", str(OUT_OF_ORDER))
    with stage.phase("plug two more"):
        vcpuctl(stage, vm, "plug", "-n", "2")
    vcpuctl(stage, vm, "list")
    with stage.phase("use them in the guest"):
        run_on_each(stage, vm)
    with stage.phase("unplug all three"):
        vcpuctl(stage, vm, "scale", "1")
    vcpuctl(stage, vm, "list")
    if slots(vm) != before:
        raise DemoError("the slots at the end are not those of the start")
    if vm.guest_cpus() != guest_before:
        raise DemoError("the guest's CPUs at the end are not those of the start")
    stage.say("the end equals the start, in QEMU's slots and in the guest's own eyes")


def _kept(vm: Vm) -> str:
    """Keep what the VM, its console and its monitor said; where."""
    keep = Path(tempfile.mkdtemp(prefix="vcpuctl-demo-"))
    vm.collect(keep)
    return f"what the VM, its console and its monitor said is kept in {keep}"


def show(stage: Stage) -> None:
    """The whole demo, from nothing to the end."""
    with Lab(progress=stage.say) as lab:
        with stage.phase("find or build QEMU, the guest and its saved state"):
            lab.prepare(SPEC)
        began = time.monotonic()
        with lab.vm(SPEC) as vm:
            stage.phases.append(("start the VM from its saved state", time.monotonic() - began))
            try:
                tour(stage, vm)
            except (DemoError, LabError, subprocess.SubprocessError) as error:
                raise DemoError(f"{error}\n{_kept(vm)}") from error


def main() -> int:
    """Run the demo; its exit status."""
    stage = Stage()
    try:
        show(stage)
    except (DemoError, LabError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("\nHow long each phase took:")
    for name, seconds in stage.phases:
        print(f"  {seconds:7.2f} s  {name}")
    return 0


if __name__ == "__main__":
    if not shutil.which(VCPUCTL):
        sys.exit("demo: run it by: make demo")
    sys.exit(main())
