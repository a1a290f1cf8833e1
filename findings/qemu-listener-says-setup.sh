#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# QEMU: query-migrate's "setup" means, by its documentation, that a migration has begun; on a source it has, and
# device_add is refused ("not allowed while migrating"). So an expert takes a VM that says "setup" for one that is
# being migrated.
#
# What happens: a destination (-incoming defer) says so from the moment at which it was told where to listen, for as
# long as nobody connects, be it for days, and its event MIGRATION says so too. There device_add works: only the side
# that sends refuses it.
#
# Why it matters: a destination that waits is the one place where missing vCPUs may still be plugged, and its status
# says that it is too late. vcpuctl tells the two apart by query-status "inmigrate" and knows "setup" as "nothing has
# come yet": tests/unit/host/core/migration/test_compare.py::test_a_qemu_that_listens_for_its_vm_already_still_waits_for_it.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

qemu_10_0
run_python <<'PYTHON'
import re
import socket
import threading

from qmp import Qemu, Verdict, until

verdict = Verdict()
machine = ("qemu-10.0", "x86_64", "-machine", "q35", "-cpu", "qemu64", "-m", "64", "-smp", "1,maxcpus=4")

with Qemu(*machine, "-incoming", "defer") as qemu:
    verdict.saw("QEMU", qemu.version, "10.0.13")
    verdict.saw("query-migrate before it listens", qemu.ask("query-migrate"), {})
    qemu.ask("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
    verdict.saw("migrate-incoming", qemu.ask("migrate-incoming", uri=f"unix:{qemu.folder}/here"), {})
    verdict.saw("query-migrate, nobody has connected", qemu.ask("query-migrate").get("status"), "setup")
    said = [event["data"] for event in qemu.events if event["event"] == "MIGRATION"]
    verdict.saw("its event MIGRATION", said, [{"status": "setup"}])
    verdict.saw("query-status", qemu.ask("query-status")["status"], "inmigrate")
    verdict.saw("device_add there", qemu.plug("one", 1), {})
    verdict.saw("slots with a CPU", qemu.filled(), [0, 1])


def drain(listener: socket.socket) -> None:
    connection = listener.accept()[0]
    while connection.recv(1 << 16):
        pass


with Qemu(*machine) as qemu, socket.socket(socket.AF_UNIX) as listener:
    listener.bind(f"{qemu.folder}/there")
    listener.listen(1)
    threading.Thread(target=drain, args=(listener,), daemon=True).start()
    # it stays on its way until it is told to go on
    qemu.ask("migrate-set-capabilities", capabilities=[{"capability": "pause-before-switchover", "state": True}])
    qemu.ask("migrate", uri=f"unix:{qemu.folder}/there")
    until(lambda: qemu.ask("query-migrate")["status"] == "pre-switchover", "the source is about to hand over")
    refused = re.compile("error: device_add not allowed while migrating")
    verdict.saw("device_add on a source that migrates", qemu.plug("one", 1), refused)
    qemu.ask("migrate_cancel")
    until(lambda: qemu.ask("query-migrate")["status"] == "cancelled", "the migration is cancelled")
    verdict.saw("device_add there once that is cancelled", qemu.plug("one", 1), {})

verdict.end()
PYTHON
