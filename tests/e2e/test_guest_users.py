# SPDX-License-Identifier: Apache-2.0
"""A user of the guest without privileges reaches neither the agent's port nor its socket, nor the agent itself."""

from __future__ import annotations

import json

import pytest
from kit.e2e.machine import Machine
from kit.e2e.operation import PID, run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: Tries what an attacker would, and says how each attempt ended: "done", or the errno's name. Signal 0 tests permission
#: and sends nothing (kill(2)).
PROBE = b"""
import errno, json, os, socket, sys

def attempt(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

print(json.dumps({
    "port": attempt(lambda: os.close(os.open("/dev/virtio-ports/org.vcpuctl.agent.0", os.O_RDWR))),
    "directory": attempt(lambda: os.listdir("/run/vcpud")),
    "socket": attempt(lambda: socket.socket(socket.AF_UNIX).connect("/run/vcpud/agent.sock")),
    "signal": attempt(lambda: os.kill(int(sys.argv[1]), 0)),
    "online": attempt(lambda: open("/sys/devices/system/cpu/cpu1/online", "w").close()),
}))
"""
NOBODY = "setpriv --reuid nobody --regid nogroup --clear-groups"


def test_an_unprivileged_user_of_the_guest_reaches_nothing_of_the_agent(machine: Machine) -> None:
    assert run(machine, "scale", "2", within=60).status == 0  # the agent's server runs from now on for half a minute
    machine.vm.put(PROBE, "/tmp/probe.py")
    pid = machine.vm.shell(f"echo {PID}", 30).strip()
    nobody = json.loads(machine.vm.shell(f"{NOBODY} python3 -I /tmp/probe.py {pid}", 60))
    root = json.loads(machine.vm.shell(f"python3 -I /tmp/probe.py {pid}", 60))
    assert nobody == {
        "port": "EACCES",
        "directory": "EACCES",
        "socket": "EACCES",
        "signal": "EPERM",
        "online": "EACCES",
    }
    # The same attempts by root show that everything was there: the port has its one opener, the socket its listener.
    assert root == {"port": "EBUSY", "directory": "done", "socket": "done", "signal": "done", "online": "done"}
    assert machine.vm.shell(f"echo {PID}", 30).strip() == pid
    assert run(machine, "scale", "1", within=60).status == 0
