# SPDX-License-Identifier: Apache-2.0
"""A real ``vcpuctl serve`` as a process, with a vms.d of its own, and a plain gRPC client of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from kit.fakes.qemu import FakeVm
from vcpu_proto.host.v1 import host_pb2 as pb
from vcpu_proto.host.v1.host_pb2_grpc import HostStub

from .cli import SOON, until


class Serving:
    """The service, up from the beginning of its block to the end.

    ``inside``: as of ``cli.Vcpuctl``; ``options``: more words of its command line. ``settings``: what each VM's file
    holds beside its socket.
    """

    def __init__(
        self,
        vms: Mapping[str, FakeVm],
        inside: Sequence[str] = (),
        *,
        options: Sequence[str] = (),
        settings: str = "",
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="vs", dir="/tmp"))
        self._vms = self._folder / "vcpuctl" / "vms.d"
        self._vms.mkdir(parents=True)
        self.socket = self._folder / "serve.sock"
        self._settings = settings
        for name, vm in vms.items():
            self._write(name, vm)
        self.process = subprocess.Popen(
            [*inside, sys.executable, "-m", "vcpu_host.cli.main", "serve", "--socket", str(self.socket), *options],
            env={**os.environ, "XDG_CONFIG_HOME": str(self._folder), "XDG_RUNTIME_DIR": str(self._folder)},
        )

    def _write(self, name: str, vm: FakeVm) -> None:
        (self._vms / f"{name}.toml").write_text(f'qmp = "{vm.qmp}"\n{self._settings}', encoding="utf-8")

    def adds(self, name: str, vm: FakeVm) -> None:
        """Configure another VM, and have the service look."""
        self._write(name, vm)
        self.process.send_signal(signal.SIGHUP)

    def breaks(self, name: str) -> None:
        """Spoil the VM's file, and have the service look."""
        (self._vms / f"{name}.toml").write_text("qmp = \n", encoding="utf-8")
        self.process.send_signal(signal.SIGHUP)

    def moves(self, name: str, vm: FakeVm, monitor: str) -> None:
        """Configure another way to the VM, and have the service look."""
        (self._vms / f"{name}.toml").write_text(f'qmp = "{vm.folder / monitor}"\n{self._settings}', encoding="utf-8")
        self.process.send_signal(signal.SIGHUP)

    def forgets(self, name: str) -> None:
        """Take a VM's file away, and have the service look."""
        (self._vms / f"{name}.toml").unlink()
        self.process.send_signal(signal.SIGHUP)

    @contextmanager
    def host(self) -> Iterator[HostStub]:
        """A client."""
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            yield HostStub(channel)  # type: ignore[no-untyped-call] # generated

    def names(self) -> set[str]:
        """The VMs that the service keeps."""
        with self.host() as host:
            return {vm.name for vm in host.ListVms(pb.ListVmsRequest(), timeout=SOON).vms}

    def trouble(self, name: str) -> str:
        """Why the service does not hold the VM; "" if it does, or does not know the name."""
        with self.host() as host:
            return "".join(vm.trouble for vm in host.ListVms(pb.ListVmsRequest(), timeout=SOON).vms if vm.name == name)

    def held(self, name: str) -> bool:
        """Whether the service holds the VM."""
        with self.host() as host, suppress(grpc.RpcError):
            return any(vm.held for vm in host.ListVms(pb.ListVmsRequest(), timeout=SOON).vms if vm.name == name)
        return False

    def holds(self, name: str) -> None:
        """Wait until it does."""
        until(lambda: self.held(name) or self.process.poll() is not None)
        assert self.process.poll() is None, "the service has ended"

    def __enter__(self) -> Self:
        until(lambda: self.socket.exists() or self.process.poll() is not None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(SOON)
            finally:
                self.process.kill()
        shutil.rmtree(self._folder)
