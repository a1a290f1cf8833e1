#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# protobuf: its wheels carry a fast implementation in C (upb), and a slow one in Python for where that cannot run. An expert
# expects a program that has the fast one to load the fast one.
#
# What happens in protobuf 7.35.1: the first generated module that is imported loads the whole of the Python one as well: how it
# packs and unpacks, its containers, the text format, and with them pickle, some 15 modules that nothing calls then. That is
# more than half of the import's time, and more than 1 MB of the process's own memory. With an empty module in the place of
# google.protobuf.internal.python_message, by whose import they come, messages work all the same.
#
# Why it matters: each vcpuctl command that asks the agent pays for that import, and vcpud keeps the memory while it idles in every
# guest. vcpuctl does not put that module out of the way: it is a private name, and the next version may
# come to need it. It loads the messages late: commands that do not ask the agent have nothing of protobuf
# (docs/reports/speed.md).
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

pip_packages protobuf==7.35.1
run_python <<'PYTHON'
import importlib.metadata
import json
import statistics
import subprocess
import sys

from qmp import Verdict

PROGRAM = """
import json, sys, time
from types import ModuleType
from google.protobuf.internal import api_implementation
NAME = "google.protobuf.internal.python_message"
if sys.argv[1] == "hidden":
    sys.modules[NAME] = ModuleType(NAME)
before, began = set(sys.modules), time.process_time()
from google.protobuf import duration_pb2
spent = time.process_time() - began
sent, received = duration_pb2.Duration(seconds=3, nanos=5), duration_pb2.Duration()
received.ParseFromString(sent.SerializeToString())
fields = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("RssAnon"))
print(json.dumps({
    "type": api_implementation.Type(), "works": received == sent and received.nanos == 5, "seconds": spent,
    "memory": int(fields["RssAnon"].split()[0]), "new": sorted(set(sys.modules) - before),
}))
"""


def run(how: str) -> dict[str, object]:
    ended = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True)
    return json.loads(ended.stdout)


verdict = Verdict()
verdict.saw("protobuf", importlib.metadata.version("protobuf"), "7.35.1")
pairs = [(run("plain"), run("hidden")) for _ in range(7)]
plain, hidden = pairs[0]
share = statistics.median(1 - less["seconds"] / more["seconds"] for more, less in pairs)
memory = statistics.median(more["memory"] - less["memory"] for more, less in pairs)
sys.stdout.write(
    f"the import without the Python implementation: {share:.0%} less of the processor's time (median of seven), "
    f"{memory:.0f} kB less of its own memory\n"
)
verdict.saw("the implementation in use", plain["type"], "upb")
PARTS = ["decoder", "encoder", "python_message", "containers"]
for part in PARTS:
    verdict.saw(f"{part} is loaded", f"google.protobuf.internal.{part}" in plain["new"], True)
    verdict.saw(f"{part}, without python_message", f"google.protobuf.internal.{part}" in hidden["new"], False)
verdict.saw("pickle and the text format come along", {"pickle", "google.protobuf.text_format"} <= {*plain["new"]}, True)
verdict.saw("a message works with both", plain["works"], True)
verdict.saw("a message works without the Python one", hidden["works"], True)
verdict.saw("that takes more than 500 kB less", memory > 500, True)
verdict.end()
PYTHON
