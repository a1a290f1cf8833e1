#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# rpm 4.20: a package with a scriptlet is installed in a root by chroot(8), as image builders and tests do. An expert
# expects that to work where the programs are there that the scriptlet needs, as with rpm 4.18.
#
# What happens: the scriptlet is not run. A plugin of newer versions, "unshare", runs each scriptlet in a mount namespace
# of its own and makes "/" private there (mount(2), MS_PRIVATE), which the kernel refuses where "/" is no mount. The package
# counts as installed all the same, and rpm ends with status 0. Where %pre is the scriptlet, the package is not installed.
# In the same root all works once it is bound to itself (mount --rbind ROOT ROOT).
#
# Why it matters: vcpu-host's package makes its group, and enables nothing, in scriptlets. In an image that is built so, the
# group would be missing, with a warning in the builder's log alone. vcpuctl's RPM is tried in a root that is a mount:
# packaging/tools/rpm.py, tests/e2e/test_dist.py.
set -eu
# shellcheck source=SCRIPTDIR/lib/common.sh
. "$(dirname -- "$0")/lib/common.sh"

debian_root rpm-4.18 bookworm rpm=4.18.0+dfsg-1+deb12u1 base-files dash coreutils
debian_root rpm-4.20 trixie rpm=4.20.1+dfsg-3 base-files dash coreutils

run_python <<'PYTHON'
import os
import subprocess
from pathlib import Path

from qmp import Verdict

SPEC = """\
Name: demo
Version: 1
Release: 1
Summary: A demo
License: MIT
BuildArch: noarch
%description
A demo.
%{when}
echo ran >/ran
%files
"""


class Root:
    def __init__(self, version):
        self.path = Path(os.environ["WORK"], f"rpm-{version}")
        for name in ("var/lib/rpm", "var/tmp", "tmp", "dev", "etc"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mknod", "-m", "666", self.path / "dev/null", "c", "1", "3"], check=True)

    def does(self, *words, mount=False):
        within = 'mount --rbind "$0" "$0"; exec chroot "$0" "$@"' if mount else 'exec chroot "$0" "$@"'
        argv = ["unshare", "--mount", "sh", "-ec", within, self.path, *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60)

    def makes(self, when):
        (self.path / "demo.spec").write_text(SPEC.replace("%{when}", when))
        self.does("rpmbuild", "-bb", "--define", "_rpmdir /made", "/demo.spec")
        return "/made/noarch/demo-1-1.noarch.rpm"

    def installs(self, package, mount=False):
        ran = self.path / "ran"
        ran.unlink(missing_ok=True)
        done = self.does("rpm", "--install", "--nodeps", package, mount=mount)
        there = self.does("rpm", "--query", "demo").returncode == 0
        self.does("rpm", "--erase", "--noscripts", "demo")
        return (done.returncode, there, ran.exists()), done.stderr


verdict = Verdict()
HOW = "(status of rpm --install, installed, scriptlet has run)"
old, new = Root("4.18"), Root("4.20")
for root, version in ((old, "4.18.0"), (new, "4.20.1")):
    verdict.saw("version", root.does("rpm", "--version").stdout.split()[-1], version)
verdict.saw(f"4.18, / is no mount, %post {HOW}", old.installs(old.makes("%post"))[0], (0, True, True))
package = new.makes("%post")
found, said = new.installs(package)
verdict.saw(f"4.20, / is no mount, %post {HOW}", found, (0, True, False))
verdict.saw("what it says", said.splitlines()[0], "error: failed to change mount propagation /: Invalid argument")
verdict.saw(f"4.20, / is a mount, %post {HOW}", new.installs(package, mount=True)[0], (0, True, True))
package = new.makes("%pre")
verdict.saw(f"4.20, / is no mount, %pre {HOW}", new.installs(package)[0], (1, False, False))
verdict.saw(f"4.20, / is a mount, %pre {HOW}", new.installs(package, mount=True)[0], (0, True, True))
verdict.end()
PYTHON
