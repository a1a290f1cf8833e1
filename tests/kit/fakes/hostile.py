# SPDX-License-Identifier: Apache-2.0
"""An agent that does what its script says: a real gRPC server behind the real link, on a fake VM's port.

Left alone it is honest: it reads the fake kernel's sysfs and writes through the fake kernel. A test subclasses `Script`
and so lies in one place at a time. Whatever a method gives may be a message or bytes.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from kit.fakes.guest_port import opener
from kit.fakes.qemu import FakeVm
from kit.until import DEADLINE
from vcpu_proto.link import GuestLink
from vcpu_proto.link.frames import Decoder
from vcpu_proto.v1 import agent_pb2 as pb

SERVICE = "vcpu.v1.GuestAgent"
Answer = Any  # a message, or bytes that need not be one


def identity(slot: int) -> str:
    """The firmware identity that the guest has for the CPU in a slot."""
    return f"acpi:\\_SB_.CPUS.C{slot:03X}"


def wire(answer: Answer) -> bytes:
    """What goes out."""
    return answer if isinstance(answer, bytes) else bytes(answer.SerializeToString())


class Script:
    """The honest agent. ``control``: whether it offers requests as messages on one stream."""

    def __init__(self, folder: Path, *, control: bool = True) -> None:
        self.control = control
        self._folder = folder
        self._cpus = folder / "sys/devices/system/cpu"

    # -- what is true

    def cpus(self) -> list[pb.Cpu]:
        """Every CPU of the fake kernel."""
        found = []
        for folder in sorted(self._cpus.glob("cpu[0-9]*")):
            online = folder / "online"
            found.append(
                pb.Cpu(
                    number=int(folder.name.removeprefix("cpu")),
                    firmware_id="acpi:" + (folder / "firmware_node/path").read_text().strip(),
                    online=not online.exists() or online.read_text().strip() == "1",
                )
            )
        return found

    def cpu(self, firmware_id: str) -> pb.Cpu | None:
        """The one of that identity."""
        return next((cpu for cpu in self.cpus() if cpu.firmware_id == firmware_id), None)

    def write(self, number: int, *, online: bool) -> None:
        """Write `online` as the agent does."""
        with socket.socket(socket.AF_UNIX) as kernel:
            kernel.connect(str(self._folder / "kernel"))
            kernel.sendall(b"write devices/system/cpu/cpu%d/online %d\n" % (number, online))
            assert kernel.makefile().readline() == "0\n"

    # -- what is said

    def hello(self, request: pb.HelloRequest) -> Answer | Awaitable[Answer]:
        """The answer to Hello."""
        return pb.HelloResponse(
            protocol_min=1,
            protocol_max=1,
            agent_version="0.0",
            capabilities=["set-online", "workload", *(["control", "control-workload"] if self.control else [])],
            arch="x86_64",
            kernel="6.1.0",
            boot_id="b",
            platform="acpi",
            event_source="udev",
            instance_id="i",
        )

    def snapshot(self) -> pb.Snapshot:
        """What lists, snapshots and finals hold."""
        return pb.Snapshot(generation=1, boot_id="b", instance_id="i", cpus=self.cpus())

    def listed(self, request: pb.ListCpusRequest) -> Answer | Awaitable[Answer]:
        """The answer to ListCpus."""
        return pb.ListCpusResponse(request_id=request.request_id, snapshot=self.snapshot())

    def programs(self, request: pb.WorkloadRequest) -> Answer:
        """The answer to Workload."""
        return pb.WorkloadResponse(request_id=request.request_id, workload=pb.Workload(online="0"))

    async def watched(self, request: pb.WatchRequest) -> AsyncIterator[Answer]:
        """The answers to Watch."""
        yield pb.WatchResponse(request_id=request.request_id, snapshot=self.snapshot())
        await asyncio.Event().wait()

    async def switched(self, request: pb.SetOnlineRequest) -> AsyncIterator[Answer]:
        """The answers to SetOnline."""
        for name in request.firmware_ids:
            yield pb.SetOnlineResponse(request_id=request.request_id, result=await self.switch(name, request))
        yield pb.SetOnlineResponse(request_id=request.request_id, final=self.snapshot())

    async def switch(self, name: str, request: pb.SetOnlineRequest) -> pb.CpuResult:
        """One CPU's part, done honestly."""
        while (cpu := self.cpu(name)) is None and request.wait_for_arrival:  # noqa: ASYNC110 - the kernel's files
            await asyncio.sleep(0.01)
        if cpu is None:
            return pb.CpuResult(firmware_id=name, status=pb.CpuResult.STATUS_ABSENT)
        if cpu.online == request.online:
            return pb.CpuResult(firmware_id=name, status=pb.CpuResult.STATUS_ALREADY, observed=cpu)
        await asyncio.to_thread(self.write, cpu.number, online=request.online)
        return pb.CpuResult(firmware_id=name, status=pb.CpuResult.STATUS_DONE, observed=self.cpu(name), seconds=0.001)

    async def controlled(self, requests: AsyncIterator[pb.ControlRequest]) -> AsyncIterator[Answer]:
        """The answers to the stream of requests: one after another, for a test asks for one at a time."""
        async for request in requests:
            kind = request.WhichOneof("request")
            if kind == "list_cpus":
                answer = self.listed(request.list_cpus)
                answer = await answer if inspect.isawaitable(answer) else answer
                yield self.part(list_cpus=answer)
                yield self.part(ended=pb.ControlEnded(request_id=request.list_cpus.request_id))
            elif kind == "set_online":
                async for answer in self.switched(request.set_online):
                    yield self.part(set_online=answer)
                yield self.part(ended=pb.ControlEnded(request_id=request.set_online.request_id))
            elif kind == "workload":
                yield self.part(workload=self.programs(request.workload))
                yield self.part(ended=pb.ControlEnded(request_id=request.workload.request_id))

    @staticmethod
    def part(**answer: Answer) -> Answer:
        """One answer as a message of the stream; bytes go out as they are."""
        (inside,) = answer.values()
        return inside if isinstance(inside, bytes) else pb.ControlResponse(answers=[pb.ControlAnswer(**answer)])


class Hostile:
    """``with Hostile(vm, script):`` has the agent at the VM's port, in a thread of its own."""

    def __init__(
        self,
        vm: FakeVm,
        script: Script,
        *,
        link: Callable[..., GuestLink] = GuestLink,
        compression: grpc.Compression = grpc.Compression.NoCompression,
    ) -> None:
        self._vm = vm
        self._script = script
        self._make_link = link
        self._compression = compression
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._stop = asyncio.Event()
        self.link: GuestLink | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._vm.wait_port(is_open=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._loop.close()

    async def _run(self) -> None:
        path = str(self._vm.folder / "agent.hostile")  # gRPC itself removes what the last one left
        server = grpc.aio.server(compression=self._compression, options=[("grpc.max_send_message_length", -1)])
        server.add_generic_rpc_handlers((self._handlers(),))
        server.add_insecure_port("unix:" + path)
        await server.start()
        self.link = self._make_link(opener(str(self._vm.folder / "port.guest")), path, instance=os.urandom(8))
        serving = asyncio.create_task(self.link.run())
        await self._stop.wait()
        self.link.abort()
        await serving
        await server.stop(0)

    def _handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        script = self._script

        async def whole(answer: Answer | Awaitable[Answer]) -> bytes:
            return wire(await answer if inspect.isawaitable(answer) else answer)

        async def hello(request: pb.HelloRequest, context: Any) -> bytes:
            return await whole(script.hello(request))

        async def listed(request: pb.ListCpusRequest, context: Any) -> bytes:
            return await whole(script.listed(request))

        async def programs(request: pb.WorkloadRequest, context: Any) -> bytes:
            return await whole(script.programs(request))

        async def watched(request: pb.WatchRequest, context: Any) -> AsyncIterator[bytes]:
            async for answer in script.watched(request):
                yield wire(answer)

        async def switched(request: pb.SetOnlineRequest, context: Any) -> AsyncIterator[bytes]:
            async for answer in script.switched(request):
                yield wire(answer)

        async def controlled(requests: AsyncIterator[pb.ControlRequest], context: Any) -> AsyncIterator[bytes]:
            async for answer in script.controlled(requests):
                yield wire(answer)

        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Hello": grpc.unary_unary_rpc_method_handler(hello, pb.HelloRequest.FromString),
                "ListCpus": grpc.unary_unary_rpc_method_handler(listed, pb.ListCpusRequest.FromString),
                "Workload": grpc.unary_unary_rpc_method_handler(programs, pb.WorkloadRequest.FromString),
                "Watch": grpc.unary_stream_rpc_method_handler(watched, pb.WatchRequest.FromString),
                "SetOnline": grpc.unary_stream_rpc_method_handler(switched, pb.SetOnlineRequest.FromString),
                "Control": grpc.stream_stream_rpc_method_handler(controlled, pb.ControlRequest.FromString),
            },
        )


class Stranger:
    """Whoever opens the guest's port without any of our code: ``write`` sends bytes, ``frames`` reads what comes."""

    def __init__(self, vm: FakeVm) -> None:
        self._vm = vm
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(str(vm.folder / "port.guest"))
        vm.wait_port(is_open=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def write(self, data: bytes, *, within: float = DEADLINE) -> bool:
        """Send it all, in pieces that a port would take; False if nobody took it in time."""
        deadline = time.monotonic() + within
        for at in range(0, len(data), 16384):
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                self._socket.send(data[at : at + 16384])
            except TimeoutError:
                return False
        return True

    def opened(self, within: float = DEADLINE) -> bytes:
        """The token of the OPEN that comes."""
        decoder = Decoder()
        for packet in self.packets(within):
            for frame in decoder.feed(packet):
                return frame.token
        raise AssertionError("no OPEN came")

    def packets(self, within: float) -> Iterator[bytes]:
        """What the host sends, as it comes, until nothing has for so long or its end is closed."""
        self._socket.settimeout(within)
        while True:
            try:
                packet = self._socket.recv(1 << 17)
            except TimeoutError:
                return
            if not packet:
                return
            if packet[:1] == b"D":
                yield packet[1:]
