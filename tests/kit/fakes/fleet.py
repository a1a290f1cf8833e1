# SPDX-License-Identifier: Apache-2.0
"""Many fake VMs, each with its file in a vms.d of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kit.fakes.qemu import FakeVm

#: So many are started at once: each takes half a second of a core.
_AT_ONCE = 4


class FakeFleet:
    """``vms`` by name. ``environment`` has vcpuctl find them, and keep its locks and records apart, unless it is root."""

    def __init__(self, folder: Path, vms: Mapping[str, FakeVm]) -> None:
        self.folder = folder
        self.vms = vms

    @property
    def environment(self) -> dict[str, str]:
        """What a vcpuctl gets."""
        return {**os.environ, "XDG_CONFIG_HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder)}

    def goals(self, vcpus: Mapping[str, int] | int) -> Path:
        """Return a file for apply: each VM's number, or one number for all."""
        wanted = dict.fromkeys(self.vms, vcpus) if isinstance(vcpus, int) else vcpus
        path = self.folder / "goals.toml"
        path.write_text("[vms]\n" + "".join(f"{name} = {number}\n" for name, number in wanted.items()))
        return path


@contextmanager
def fake_fleet(
    folder: Path, names: Sequence[str], *options: str, without_agent: Sequence[str] = ()
) -> Iterator[FakeFleet]:
    """Start a VM for each name, with these options; those ``without_agent`` have none. ``folder`` is a short path."""
    vms_d = folder / "vcpuctl/vms.d"
    vms_d.mkdir(parents=True)
    vms: dict[str, FakeVm] = {}
    for place, name in enumerate(names):
        home = folder / str(place)
        home.mkdir()
        vms[name] = FakeVm(home, *options, agent=name not in without_agent)
        (vms_d / f"{name}.toml").write_text(f'qmp = "{home / "qmp"}"\n')
    with ExitStack() as ends, ThreadPoolExecutor(_AT_ONCE) as starting:
        try:
            begun = [starting.submit(vm.__enter__) for vm in vms.values()]
        finally:
            starting.shutdown(wait=True)
        for vm, start in zip(vms.values(), begun, strict=True):
            if start.exception() is None:
                ends.push(vm)
        for start in begun:
            start.result()
        yield FakeFleet(folder, vms)
