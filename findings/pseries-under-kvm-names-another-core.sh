#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# QEMU: on a pseries machine query-cpus-fast shows each vCPU with its cpu-index and, in props, its core. Under TCG both
# follow from the core that it is a thread of, whatever came in which order. An expert expects no less under KVM.
#
# What happens under KVM: since 9.1 (target/ppc/kvm.c, kvmppc_cpu_realize; 10.0.13 and 11.1.3 alike, 7.2.22 not) a new
# vCPU gets as cpu-index, and as its number in KVM and in the guest, one more than the highest that is in use. props are
# made of that number: with cores plugged in the order 3, 1, 2, each of them is shown as another one. qom-path in the
# same answer, and all of query-hotpluggable-cpus, are right.
#
# Why it matters: whoever goes by props takes one core for another, and unplugs the wrong one. vcpuctl joins by QOM path,
# and takes a core's name in the guest from cpu-index: tests/unit/host/core/platforms/test_pseries_under_kvm.py.
#
# No KVM is needed here: an emulated POWER9 has one for machines within it (cap-nested-hv). No guest ever runs in those.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

debian_root host sid qemu-system-ppc=1:11.1.3+ds-1
architecture=ppc64el
debian_root new sid qemu-system-ppc=1:11.1.3+ds-1 busybox-static
debian_root old bookworm qemu-system-ppc=1:7.2+dfsg-7+deb12u18+b3 linux-image-6.1.0-50-powerpc64le
run_python <<'PYTHON'
import json
import pathlib
import shutil

from emulated_host import EmulatedHost
from qmp import WORK, Verdict, program

work = pathlib.Path(WORK)
(kernel,) = work.glob("old/boot/vmlinux-*")
(modules,) = work.glob("old/lib/modules/*/kernel/arch/powerpc/kvm")
host = EmulatedHost("top", "powerpc64le-linux-gnu", "ld64.so.2", "new")
for module in ("kvm.ko", "kvm-hv.ko"):
    shutil.copy(modules / module, host.top)
for root in ("new", "old"):
    host.qemu(root, "qemu-system-ppc64")
    shutil.copy(work / "new/usr/share/qemu/vof.bin", host.top / root)
console = host.run(
    [
        *program("host", "qemu-system-ppc64"), "-L", str(work / "host/usr/share/qemu"),
        *("-machine", "pseries,x-vof=on,cap-nested-hv=on", "-cpu", "POWER9", "-smp", "2", "-m", "4G"),
    ],
    kernel,
    "console=hvc0",
    """insmod /kvm.ko; insmod /kvm-hv.ko
say() { echo "{'execute': $1}"; sleep 2; }
add() { say "'device_add', 'arguments': {'driver': 'host-spapr-cpu-core', 'id': 'core$1', 'core-id': $1}"; }
orders() {
    say "'qmp_capabilities'"
    add 3; add 1; add 2; say "'query-cpus-fast'"; say "'quit'"
}
for root in new old; do
    echo "BEGIN $root"
    orders | /$root/ld64.so.2 --library-path /$root /$root/qemu -L /$root -accel kvm -cpu host -smp 1,maxcpus=4 \\
        -m 256 -machine pseries,x-vof=on,cap-sbbc=broken,cap-cfpc=broken,cap-ibs=broken,cap-ccf-assist=off -S \\
        -nodefaults -nographic -qmp stdio 2>&1
    echo "END $root"
done""",
)  # fmt: skip

verdict = Verdict()
for root, version in (("new", (11, 1, 3)), ("old", (7, 2, 22))):
    said = console.partition(f"BEGIN {root}")[2].partition(f"END {root}")[0]
    looks = []
    for line in said.splitlines():
        if not line.startswith("{"):
            continue
        answer = json.loads(line)
        if "QMP" in answer:
            told = answer["QMP"]["version"]["qemu"]
            verdict.saw("QEMU", (told["major"], told["minor"], told["micro"]), version)
        elif isinstance(answer.get("return"), list):
            cpus = answer["return"]
            looks.append({cpu["qom-path"].split("/")[3]: (cpu["cpu-index"], cpu["props"]["core-id"]) for cpu in cpus})
    by_order = root == "new"
    first = {"device[1]": (0, 0), "core3": (1, 1), "core1": (2, 2), "core2": (3, 3)}
    right = {"device[1]": (0, 0), "core1": (1, 1), "core2": (2, 2), "core3": (3, 3)}
    verdict.saw("plugged 3, 1, 2: (cpu-index, core-id)", looks[0] if looks else said, first if by_order else right)
verdict.end()
PYTHON
