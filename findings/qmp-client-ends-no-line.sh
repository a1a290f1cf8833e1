#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# qemu.qmp, QEMU's own Python client of QMP: QMP's messages are JSON, a line each, and the client reads them so. An
# expert who writes a stand-in for QEMU, a relay that logs, or a proxy that lets only some commands through, reads
# lines in his turn.
#
# What happens: not one thing that the client sends ends its line, so such a reader waits for ever for the first
# command; with QEMU itself it works, whose parser takes JSON as it comes. In the other direction the client insists:
# an answer that is whole but for the line's end does not exist for it.
#
# Why it matters: whatever stands between a manager and QEMU's monitor has to parse JSON from the one side, and to end
# lines on the other. vcpuctl's stand-in for QEMU finds messages as QEMU does, by
# their brackets: tests/kit/fakes/qemu/splitter.py.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

pip_packages qemu.qmp==0.0.6
run_python <<'PYTHON'
import asyncio
import importlib.metadata
import json
import os

from qemu.qmp import QMPClient
from qmp import GREETING, LIMIT, WORK, Verdict

verdict = Verdict()
path = os.path.join(WORK, "monitor")
heard: list[bytes] = []
line_may_end = asyncio.Event()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(json.dumps(GREETING).encode() + b"\n")
    while message := await reader.read(1 << 16):
        heard.append(message)
        command = json.loads(message)
        answer = {"return": {}, **({"id": command["id"]} if "id" in command else {})}
        writer.write(json.dumps(answer).encode())
        if command["execute"] == "query-status":
            await line_may_end.wait()
        writer.write(b"\n")
    writer.close()


async def main() -> None:
    server = await asyncio.start_unix_server(serve, path)
    client = QMPClient("finding")
    await asyncio.wait_for(client.connect(path), LIMIT)
    asked = asyncio.create_task(client.execute("query-status"))
    done, _ = await asyncio.wait([asked], timeout=2)
    commands = [json.loads(message)["execute"] for message in heard]
    verdict.saw("commands sent", commands, ["qmp_capabilities", "query-status"])
    verdict.saw("line ends in them", sum(message.count(b"\n") for message in heard), 0)
    verdict.saw("answered after 2 s with all but the line's end", bool(done), False)
    line_may_end.set()
    verdict.saw("answered once the line has ended", await asyncio.wait_for(asked, LIMIT), {})
    await asyncio.wait_for(client.disconnect(), LIMIT)
    server.close()


verdict.saw("qemu.qmp", importlib.metadata.version("qemu.qmp"), "0.0.6")
asyncio.run(main())
verdict.end()
PYTHON
