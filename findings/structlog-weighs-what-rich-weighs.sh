#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# structlog: a program that writes JSON lines, or plain ones, needs of it a chain of functions and a printer. An expert
# expects that importing structlog costs the same wherever it runs, and that what draws coloured tracebacks is loaded
# when a program asks for that.
#
# What happens in structlog 26.1.0: `import structlog` loads rich (15.0.0) if that happens to be installed: more
# than 30 modules, and 6 MB of the process's own memory for good, although nothing is ever drawn. So the memory of a daemon
# depends on what else its administrator has installed. Without rich it writes the very same line, and takes 2 MB.
#
# Why it matters: vcpud idles in every guest, and is to be small. It was a fifth larger where rich was installed. Now it
# imports structlog with rich out of sight: proto/src/vcpu_proto/lean.py, tests/unit/guest/test_main.py.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

pip_packages structlog==26.1.0 rich==15.0.0
run_python <<'PYTHON'
import importlib.metadata
import subprocess
import sys

from qmp import Verdict

PROGRAM = """
import json, sys
if sys.argv[1] == "hidden":
    sys.modules["rich"] = None
if sys.argv[1] != "nothing":
    import structlog
    structlog.configure(processors=[structlog.processors.JSONRenderer()],
                        logger_factory=structlog.PrintLoggerFactory(sys.stdout))
    structlog.get_logger().info("event", cpu=3)
else:
    import logging, asyncio  # what structlog takes of Python in any case
    print()
fields = dict(line.split(":") for line in open("/proc/self/status") if line.startswith(("RssAnon",)))
print(int(fields["RssAnon"].split()[0]))
print(sum(module is not None and name.split(".")[0] == "rich" for name, module in sys.modules.items()))
"""


def run(how: str) -> tuple[str, int, int]:
    """Return the line that is logged, the process's own memory in kB, and how many modules of rich are loaded."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True)
    line, memory, modules = ended.stdout.splitlines()
    return line, int(memory), int(modules)


verdict = Verdict()
for package, version in (("structlog", "26.1.0"), ("rich", "15.0.0")):
    verdict.saw(package, importlib.metadata.version(package), version)
(_, bare, _), (hidden_line, hidden, without), (line, seen, modules) = map(run, ("nothing", "hidden", "seen"))
sys.stdout.write(f"own memory in kB: {bare} without structlog, {hidden} with it and without rich, {seen} with both\n")
verdict.saw("modules of rich, out of sight", without, 0)
verdict.saw("modules of rich, installed: more than thirty", modules > 30, True)
verdict.saw("the same line is logged", hidden_line == line, True)
verdict.saw("with rich structlog takes more than twice as much", seen - bare > 2 * (hidden - bare), True)
verdict.end()
PYTHON
