#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# qemu.qmp, QEMU's own Python client of QMP: every command that it sends has an id, and an answer that it cannot tie
# to one is nobody's. An expert expects one treatment for all of these: a line in the log, and the connection lives.
#
# What happens: an answer with an unknown id is logged and dropped, be it a success or an error; so is a success
# without an id. An *error* without an id ends the connection: all commands under way, the innocent too, fail with
# "Disconnected" though QEMU is well and goes on with them, and the client has to disconnect (which raises) before it
# may connect again.
#
# Why it matters: QEMU sends such an error when it could not read a message at all, a relay may do so at any time. A
# device_add that was under way then ends with a lost connection, and has been made all the same: who takes that for a
# failure and repeats it meets "already exists". To vcpuctl a lost connection says nothing of what was
# done: tests/component/test_qmp_adapter.py::test_a_connection_lost_in_the_middle_of_a_command_is_told_at_once.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

pip_packages qemu.qmp==0.0.6
run_python <<'PYTHON'
import asyncio
import importlib.metadata
import json
import os
from typing import Any

from qemu.qmp import QMPClient, QMPError
from qmp import GREETING, LIMIT, WORK, Verdict

verdict = Verdict()
path = os.path.join(WORK, "monitor")
refused = {"error": {"class": "GenericError", "desc": "refused"}}


async def stray(answer: dict[str, Any]) -> list[str]:
    """The client's fate if that answer comes while a command is under way, whose own comes right after it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(GREETING).encode() + b"\n")
        while message := await reader.read(1 << 16):
            command = json.loads(message)
            own = {"return": {}, **({"id": command["id"]} if "id" in command else {})}
            answers = [own] if command["execute"] == "qmp_capabilities" else [answer, own]
            writer.writelines(json.dumps(one).encode() + b"\n" for one in answers)
        writer.close()

    async def end(words: Any) -> str:
        try:
            await asyncio.wait_for(words, LIMIT)
        except QMPError as error:
            return type(error).__name__
        return "fine"

    server = await asyncio.start_unix_server(serve, path)
    client = QMPClient("finding")
    client.logger.disabled = True
    await asyncio.wait_for(client.connect(path), LIMIT)
    fate = [await end(client.execute("query-status")), await end(client.execute("query-status"))]
    fate.append(await end(client.disconnect()))
    server.close()
    os.unlink(path)
    return fate


def fate(answer: dict[str, Any]) -> list[str]:
    return asyncio.run(stray(answer))


verdict.saw("qemu.qmp", importlib.metadata.version("qemu.qmp"), "0.0.6")
print("for each: the command under way, the next one, disconnect()")
verdict.saw("a success with an unknown id", fate({"return": {}, "id": "nobody's"}), ["fine"] * 3)
verdict.saw("an error with an unknown id", fate({**refused, "id": "nobody's"}), ["fine"] * 3)
verdict.saw("a success without an id", fate({"return": {}}), ["fine"] * 3)
ended = ["ExecInterruptedError", "StateError", "ServerParseError"]
verdict.saw("an error without an id", fate(refused), ended)
verdict.end()
PYTHON
