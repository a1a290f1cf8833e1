# SPDX-License-Identifier: Apache-2.0
"""What depends on how the guest was booted and which devices it has: isolation, queues, SMT, and who counts CPUs."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kit.e2e.machine import Machine
from kit.e2e.programs import done, ethtool, numbers, put, shell
from kit.workloads.kernels import Table

#: The options of a VM (fields of VmSpec), and what makes the table on it.
Boot = tuple[Mapping[str, Any], Callable[[Machine], Table]]


def queues(machine: Machine) -> Table:
    """Queue pairs that a virtio network device with eight of them uses."""
    shell(machine, "modprobe virtio_net; until ls -d /sys/class/net/*/device/driver; do busybox usleep 100000; done")
    name = shell(machine, "ls -d /sys/class/net/*/device/driver").split("/")[4]
    count = f"ls -d /sys/class/net/{name}/queues/tx-* | wc -l"
    row = {"booted with 1 CPU": shell(machine, count)}
    done(machine, "plug", "7", "--workload", "ignore")
    row["8 CPUs"] = shell(machine, count)
    ethtool(machine)
    shell(machine, f"ethtool -L {name} combined 8")
    row["after ethtool -L combined 8"] = shell(machine, count)
    done(machine, "scale", "1", "--workload", "ignore")
    row["1 CPU again"] = shell(machine, count)
    return {"queue pairs in use": row}


def isolation(machine: Machine) -> Table:
    """CPUs of a new program, where isolcpus= and nohz_full= name CPUs that come later."""
    script = "import os; print(*sorted(os.sched_getaffinity(0)), sep=',')"
    ask = f'python3 -c "{script}"'
    row = {"booted with 1 CPU": shell(machine, ask)}
    done(machine, "plug", "4", "--workload", "ignore")
    row["5 CPUs"] = shell(machine, ask)
    row["isolated"] = shell(machine, "cat /sys/devices/system/cpu/isolated")
    return {"a new program's CPUs": row}


def numbering(machine: Machine) -> Table:
    """Which number a CPU gets that is plugged into a high slot."""
    done(machine, "plug", "--slot", "9", "--workload", "ignore")
    (number,) = numbers(machine, 9)
    return {"slot 9, plugged first": {"its number": f"cpu{number}"}}


def smt(machine: Machine) -> Table:
    """What writing a second thread's `online` says while SMT is off."""
    shell(machine, "echo off >/sys/devices/system/cpu/smt/control")
    row = {"smt/control": shell(machine, "cat /sys/devices/system/cpu/smt/control")}
    machine.vm.qmp.execute("device_add", **_entry(machine, 1))
    machine.vm.qmp.wait_event("ACPI_DEVICE_OST", slot="1", source=1, timeout=60.0)
    shell(machine, "until [ -e /sys/devices/system/cpu/cpu1/online ]; do busybox usleep 100000; done")
    put(machine, "/run/on.py", _ON)
    for when in ("the first time", "again"):
        row[when] = shell(machine, "python3 /run/on.py")
    return {"a second thread's online": row}


_ON = """\
import errno, os
file = os.open("/sys/devices/system/cpu/cpu1/online", os.O_WRONLY)
try:
    os.write(file, b"1")
    print("ok")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def _entry(machine: Machine, slot: int) -> dict[str, Any]:
    entry = machine.vm.qmp.execute("query-hotpluggable-cpus")[-1 - slot]
    return {"driver": entry["type"], "id": f"vcpu-{slot}", **entry["props"]}


_OPENMP = """\
#include <omp.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    for (;;) {
        int team = 0;
        #pragma omp parallel reduction(+:team)
        team += 1;
        FILE *file = fopen("/run/openmp.new", "w");
        fprintf(file, "%d %d %ld\\n", omp_get_num_procs(), team, sysconf(_SC_NPROCESSORS_ONLN));
        fclose(file);
        rename("/run/openmp.new", "/run/openmp");
        usleep(20000);
    }
}
"""
_PYTHON = """\
import os
from time import sleep
while True:
    with open("/run/python.new", "w") as file:
        print(os.cpu_count(), len(os.sched_getaffinity(0)), file=file)
    os.replace("/run/python.new", "/run/python")
    sleep(0.02)
"""


def counting(machine: Machine) -> Table:
    """How many CPUs running programs see, started with one: at once, after three came, and after they went."""
    machine.vm.put(_openmp(), "/run/openmp-test")
    put(machine, "/run/python.py", _PYTHON)
    shell(machine, "chmod 755 /run/openmp-test; systemd-run --quiet --unit=omp /run/openmp-test")
    shell(machine, "systemd-run --quiet --unit=py python3 /run/python.py")
    shell(machine, "until [ -s /run/openmp ] && [ -s /run/python ]; do busybox usleep 100000; done")
    rows: dict[str, dict[str, str]] = {}

    def look(when: str) -> None:
        shell(machine, "busybox usleep 1500000")
        procs, team, online = shell(machine, "cat /run/openmp").split()
        count, mask = shell(machine, "cat /run/python").split()
        new = shell(machine, "nproc; nproc --all; getconf _NPROCESSORS_CONF").split()
        for name, value in {
            "libgomp: omp_get_num_procs()": procs,
            "libgomp: threads of a parallel region": team,
            "glibc: sysconf(_SC_NPROCESSORS_ONLN)": online,
            "Python: os.cpu_count()": count,
            "Python: sched_getaffinity": mask,
            "a new process: nproc": new[0],
            "a new process: nproc --all": new[1],
            "a new process: getconf _NPROCESSORS_CONF": new[2],
        }.items():
            rows.setdefault(name, {})[when] = value

    look("started with 1 CPU")
    done(machine, "plug", "3", "--workload", "ignore")
    look("4 CPUs")
    done(machine, "scale", "1", "--workload", "ignore")
    look("1 CPU again")
    return rows


def _openmp() -> bytes:
    """Compile the program, with all that it needs in it: guests have no compiler, and other libraries."""
    with tempfile.TemporaryDirectory() as name:
        source, made = Path(name, "t.c"), Path(name, "t")
        source.write_text(_OPENMP)
        subprocess.run(["gcc", "-O1", "-static", "-fopenmp", "-o", str(made), str(source)], check=True)
        return made.read_bytes()


_CARD = (
    "-netdev",
    "tap,id=n0,queues=8,script=no,downscript=no",
    "-device",
    "virtio-net-pci,netdev=n0,mq=on,vectors=18",
)

BOOTS: Mapping[str, Boot] = {
    "queues": ({"extra_args": _CARD}, queues),
    "isolation": ({"kernel_args": "nohz_full=1-3 isolcpus=managed_irq,domain,1-3"}, isolation),
    "numbering": ({}, numbering),
    "counting": ({}, counting),
    "smt": ({"cpu": "Nehalem"}, smt),
}
