#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# gRPC (Python's grpcio): a channel with grpc.keepalive_time_ms pings its peer, and gives it up if
# grpc.keepalive_timeout_ms pass without an answer; so its documents say. With both at one second an expert expects a
# call on a peer that has fallen silent to fail after about two.
#
# What happens in grpcio 1.85: it does not fail before its own deadline, here twenty seconds later, without one only
# after a minute. The time that counts is that of another setting, grpc.http2.ping_timeout_ms (a minute unless set),
# which guides to keepalive do not name: with it at two seconds the call fails in time, and says "ping timeout".
# (1.51, of Debian 12 and 13, keeps to grpc.keepalive_timeout_ms: the same program has another patience with each.)
#
# Why it matters: a guest that is paused, being migrated or dead is a peer that has fallen silent. Who trusts
# keepalive to tell it within seconds waits for a minute in the middle of a resize. vcpuctl sets no keepalive and asks
# over a link of its own: docs/adr/0004-link.md.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

pip_packages grpcio==1.85.3
run_python <<'PYTHON'
import os
import socket
import threading
from concurrent import futures

import grpc
from qmp import WORK, Verdict

verdict = Verdict()
server_path, relay_path = (os.path.join(WORK, name) for name in ("server", "relay"))
over, silent = threading.Event(), threading.Event()


class Handler(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def answer(request: bytes, _context: grpc.ServicerContext) -> bytes:
            if request == b"later":
                over.wait(60)
            return b"here"

        return grpc.unary_unary_rpc_method_handler(answer)


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes, but lose it while the relay is to be silent."""
    while data := source.recv(1 << 16):
        if not silent.is_set():
            target.sendall(data)


def relay(listener: socket.socket) -> None:
    while True:
        client, upstream = listener.accept()[0], socket.socket(socket.AF_UNIX)
        upstream.connect(server_path)
        for ends in ((client, upstream), (upstream, client)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


def fate(*more: tuple[str, int]) -> tuple[str, str]:
    """What becomes of a call with a deadline of 20 seconds whose peer falls silent."""
    silent.clear()
    second = [(f"grpc.keepalive_{name}_ms", 1000) for name in ("time", "timeout")]
    own = ("grpc.use_local_subchannel_pool", 1)
    with grpc.insecure_channel(f"unix:{relay_path}", options=[*second, own, *more]) as channel:
        call = channel.unary_unary("/finding/Ask")
        call(b"now", timeout=30)
        waiting = call.future(b"later", timeout=20)
        silent.set()
        error = waiting.exception(timeout=60)
        return error.code().name, error.details()


verdict.saw("grpcio", grpc.__version__, "1.85.3")
server = grpc.server(futures.ThreadPoolExecutor(8), handlers=(Handler(),))
server.add_insecure_port(f"unix:{server_path}")
server.start()
listener = socket.socket(socket.AF_UNIX)
listener.bind(relay_path)
listener.listen(8)
threading.Thread(target=relay, args=(listener,), daemon=True).start()

verdict.saw("a call on a silent peer, keepalive of 1 s + 1 s", fate(), ("DEADLINE_EXCEEDED", "Deadline Exceeded"))
timeout = ("grpc.http2.ping_timeout_ms", 2000)
in_time = ("UNAVAILABLE", "Stream removed (ping timeout)")
verdict.saw("and grpc.http2.ping_timeout_ms of 2 s", fate(timeout), in_time)
over.set()
server.stop(None).wait(30)
verdict.end()
PYTHON
