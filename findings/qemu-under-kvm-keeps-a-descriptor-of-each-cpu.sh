#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# QEMU under KVM: a vCPU that is unplugged is parked. Its descriptor of KVM stays open and is used again when the same slot
# gets a CPU again, so however often a CPU comes and goes, QEMU's process holds no more descriptors than after the first time.
#
# What happens: that descriptor is used again, but 11.1.3 opens another one for each new vCPU, KVM's statistics
# (anon_inode:kvm-vcpu-stats), and never closes it. Each plug takes one from what the process may have. 7.2.22 has none;
# 10.0.13 was seen to do as 11.1.3 (docs/reports/kvm.md).
#
# Why it matters: a VM that is resized often runs out of descriptors after months; then its monitor greets nobody any more.
# vcpuctl's list and doctor count them, and a plug that would leave too few is refused: tests/component/test_descriptors.py.
#
# No KVM is needed here: TCG emulates a host with one (AMD's SVM). The guest in it is Linux with nothing but a first process.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

qemu_11_1
debian_root old bookworm qemu-system-x86=1:7.2+dfsg-7+deb12u18+b3 linux-image-6.1.0-50-cloud-amd64 busybox-static
run_python <<'PYTHON'
import json
import pathlib
import re
import shutil

from emulated_host import INIT, EmulatedHost, archive
from qmp import WORK, Verdict, program

ROUNDS = 4
NEW, OLD = "qemu-11.1", "old"
work = pathlib.Path(WORK)
(kernel,) = work.glob("old/boot/vmlinuz-*")
(modules,) = work.glob("old/lib/modules/*/kernel")
host = EmulatedHost("top", "x86_64-linux-gnu", "ld-linux-x86-64.so.2", OLD)
guest = work / "guest"
(guest / "bin").mkdir(parents=True)
for folder in ("dev", "proc", "sys"):
    (guest / folder).mkdir()
shutil.copy(host.top / "bin/busybox", guest / "bin")
(guest / "init").write_text(f"{INIT}\necho the guest is up\nwhile :; do sleep 1000; done\n")
(guest / "init").chmod(0o755)

(host.top / "guest").write_bytes(archive(guest))
shutil.copy(kernel, host.top / "kernel")
for module in ("virt/lib/irqbypass", "arch/x86/kvm/kvm", "drivers/crypto/ccp/ccp", "arch/x86/kvm/kvm-amd"):
    if (modules / f"{module}.ko").exists():
        shutil.copy(modules / f"{module}.ko", host.top)
for root in (NEW, OLD):
    host.qemu(root, "qemu-system-x86_64", "qemu/kvmvapic.bin", "qemu/linuxboot_dma.bin", "seabios/bios-256k.bin")
firmware = [word for name in ("qemu", "seabios") for word in ("-L", str(work / NEW / "usr/share" / name))]
console = host.run(
    [
        *program(NEW, "qemu-system-x86_64"), *firmware,
        *("-machine", "q35", "-cpu", "max", "-smp", "2", "-m", "2G"),
    ],
    kernel,
    "console=ttyS0 tsc=reliable mitigations=off",
    """for module in irqbypass ccp kvm; do [ ! -e /$module.ko ] || insmod /$module.ko; done
insmod /kvm-amd.ko nested=0 avic=0
ask() { echo "{'execute': $1}" >&3; }
told() { until [ $(grep -c "$2" $1) -ge $3 ]; do kill -0 $pid || return; usleep 50000; done; }
held() { echo HELD $(ls -l /proc/$pid/fd | grep -c "kvm-vcpu:1") $(ls -l /proc/$pid/fd | grep -c "kvm-vcpu-stats:1"); }
for root in %s %s; do
    mkfifo /tmp/orders
    /$root/ld-linux-x86-64.so.2 --library-path /$root /$root/qemu -L /$root -accel kvm -cpu host -m 128 -machine q35 \\
        -smp 1,maxcpus=2,sockets=1,cores=2,threads=1 -nodefaults -nographic -qmp stdio -serial file:/tmp/console \\
        -kernel /kernel -initrd /guest -append "console=ttyS0 tsc=reliable mitigations=off nokaslr no5lvl quiet" \\
        </tmp/orders >/tmp/said 2>&1 &
    pid=$!
    exec 3>/tmp/orders
    echo BEGIN $root
    ask "'qmp_capabilities'"
    until [ -e /tmp/console ]; do kill -0 $pid || break; usleep 50000; done
    told /tmp/console "guest is up" 1
    for round in $(seq %d); do
        ask "'device_add', 'arguments': {'driver': 'host-x86_64-cpu', 'id': 'one', 'socket-id': 0, 'core-id': 1, 'thread-id': 0}"
        told /tmp/said '"return"' $((2 * round))
        told /tmp/said ACPI_DEVICE_OST $((3 * round - 2))
        ask "'device_del', 'arguments': {'id': 'one'}"
        told /tmp/said '"device": "one"' $round
        told /tmp/said '"return"' $((2 * round + 1))
        told /tmp/said ACPI_DEVICE_OST $((3 * round))
        held
    done
    ask "'quit'"
    wait $pid
    cat /tmp/said
    rm /tmp/orders /tmp/console
    echo END $root
done""" % (NEW, OLD, ROUNDS),
)  # fmt: skip

verdict = Verdict()
for root, version, each in ((NEW, (11, 1, 3), 1), (OLD, (7, 2, 22), 0)):
    said = console.partition(f"BEGIN {root}")[2].partition(f"END {root}")[0]
    greeting = next((json.loads(line) for line in said.splitlines() if line.startswith('{"QMP"')), None)
    told = greeting["QMP"]["version"]["qemu"] if greeting else {}
    verdict.saw("QEMU", tuple(told.get(part) for part in ("major", "minor", "micro")), version)
    held = [tuple(map(int, numbers)) for numbers in re.findall(r"^HELD (\d+) (\d+)", said, re.MULTILINE)]
    expected = [(1, each * number) for number in range(1, ROUNDS + 1)]
    verdict.saw("after each plug and unplug: (of the vCPU, of its statistics)", held, expected)
    if held != expected:
        print(console)
verdict.end()
PYTHON
