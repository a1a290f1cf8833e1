# SPDX-License-Identifier: Apache-2.0
"""What `make dist` makes: all that a release has, the same bytes from the same tree; what rpm makes of its packages."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import deb
import pytest
import rpm

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3000)]

ROOT = Path(__file__).resolve().parents[2]
VERSION = deb.version()
#: Programs that rpm's scriptlets call: they tell what they were called with, as if systemd ran.
_STUB = '#!/bin/sh\necho "${0##*/} $*" >>/build/called\n'
PACKAGES = ("python3-vcpu-proto", "vcpu-guest", "vcpu-host")
#: What a Fedora has of other packages (filesystem, systemd, fish, zsh, setup) and this root has not.
_ANYWAY = """\
mkdir -p /usr/lib/sysusers.d /usr/lib/udev/rules.d /usr/share/licenses /usr/share/man/man1 /usr/share/man/man8
mkdir -p /usr/share/fish/vendor_completions.d /usr/share/zsh/site-functions
touch /etc/shadow
"""


def copied(folder: Path) -> Path:
    """The tree as git has it, and as it is now, elsewhere, with other times and other modes."""
    tree = folder / "elsewhere"
    subprocess.run(["git", "clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(tree)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        source, target = ROOT / name, tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.exists():
            target.write_bytes(source.read_bytes())
            target.chmod(0o700 if source.stat().st_mode & 0o100 else 0o600)
            os.utime(target, (1_000_000_000, 1_000_000_000))
    return tree


def made(tree: Path, mask: int) -> dict[str, str]:
    """Run the tree's own dist, and return the files with their checksums."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "tests"), "TZ": "Asia/Kolkata" if mask else "UTC"}
    for part in ("proto", "host", "guest"):  # man pages are made from this tree's parsers
        environment["PYTHONPATH"] += f":{tree}/{part}/src"
    command = [sys.executable, "packaging/tools/dist.py"]
    done = subprocess.run(
        command, cwd=tree, env=environment, umask=mask, capture_output=True, text=True, timeout=2000, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tree / "build/dist").iterdir()}


@pytest.fixture(scope="module")
def release() -> Path:
    made(ROOT, 0o022)
    return ROOT / "build/dist"


def test_a_tree_elsewhere_at_another_time_gives_the_same_bytes(release: Path, tmp_path: Path) -> None:
    here = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in release.iterdir()}
    there = made(copied(tmp_path), 0o077)
    assert {name: there.get(name) == digest for name, digest in here.items()} == dict.fromkeys(here, True)
    assert there.keys() == here.keys()


def test_a_release_has_every_kind_of_file_and_the_checksums_of_all(release: Path) -> None:
    expected = {f"{name}_{VERSION}_all.deb" for name in PACKAGES}
    expected |= {f"{name}-{VERSION}-1.noarch.rpm" for name in PACKAGES}
    for part in ("vcpu_proto", "vcpu_host", "vcpu_guest"):
        expected |= {f"{part}-{VERSION}.tar.gz", f"{part}-{VERSION}-py3-none-any.whl"}
    expected |= {f"vcpuctl-vcpu-{VERSION}.tar.gz", f"vcpuctl-{VERSION}.cdx.json", "SHA256SUMS"}
    assert {path.name for path in release.iterdir()} == expected
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=release, check=True)
    assert len((release / "SHA256SUMS").read_text().splitlines()) == len(expected) - 1


def test_the_bill_of_materials_has_all_that_is_needed_and_what_is_carried_along(release: Path) -> None:
    bill = json.loads((release / f"vcpuctl-{VERSION}.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    components = {each["name"]: each for each in bill["components"]}
    assert {"vcpu-host", "vcpu-guest", "vcpu-proto", "grpcio", "protobuf", "pyudev", "structlog"} <= components.keys()
    assert components["qemu.qmp"]["properties"][0]["name"] == "carried-in"
    assert all(each["licenses"] for each in bill["components"])
    references = {each["bom-ref"] for each in bill["components"]}
    assert {need for each in bill["dependencies"] for need in each["dependsOn"]} <= references


# --- the RPM packages -------------------------------------------------------------------------------------------------


class Rpms:
    """A root with rpm, in which systemd seems to run."""

    def __init__(self, root: rpm.Root) -> None:
        self._root = root

    def run(self, script: str) -> str:
        argv = self._root.command("sh", "-ec", f"mkdir -p /run/systemd/system; cd /build; {script}")
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def called(self) -> list[str]:
        """What scriptlets have called since this was asked last."""
        path = self._root.topdir / "called"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture(scope="module")
def rpms(release: Path) -> Iterator[Rpms]:
    with rpm.Root() as root:
        for name in PACKAGES:
            file = f"{name}-{VERSION}-1.noarch.rpm"
            (root.topdir / file).write_bytes((release / file).read_bytes())
        rpms = Rpms(root)
        for name in ("systemctl", "udevadm", "systemd-sysusers"):
            rpms.run(f"printf %s {shlex.quote(_STUB)} >/usr/bin/{name}; chmod 755 /usr/bin/{name}")
        yield rpms


def test_an_rpm_package_has_what_the_debian_package_has_in_rpms_places(rpms: Rpms) -> None:
    site = re.compile(rf"^(/usr/lib/python3/dist-packages|{rpm.SITE})/")
    for name in PACKAGES:
        debian = deb_files(name)
        listed = rpms.run(f"rpm -qpl {name}-{VERSION}-1.noarch.rpm").splitlines()
        mine = {site.sub("PYTHON/", path) for path in listed if ".dist-info" not in path and "/licenses/" not in path}
        theirs = {site.sub("PYTHON/", path) for path in debian if ".dist-info" not in path}
        theirs = {path for path in theirs if not path.startswith(("/usr/share/doc/", "/usr/lib/vcpu-host/"))}
        renamed = {path.replace("vendor-completions/_", "site-functions/_") for path in theirs}
        renamed.discard("/usr/share/python3/runtime.d/vcpu-host.rtupdate")
        assert renamed - mine == set(), name
        assert not {path for path in mine if "shipped" in path or path.startswith("/build")}


def deb_files(name: str) -> set[str]:
    from debfile import Deb

    return set(Deb(ROOT / f"build/deb/{name}_{VERSION}_all.deb").files())


def test_an_rpm_package_needs_the_contract_of_its_version_and_the_versions_that_are_the_floor(rpms: Rpms) -> None:
    floors = {"python3-grpcio >= 1.51.1", "python3-structlog >= 22.3.0", f"python3-vcpu-proto = {VERSION}-1"}
    for name, more in (
        ("vcpu-guest", {"python3-pyudev >= 0.24.0", "systemd-udev"}),
        ("vcpu-host", {"python3-qemu-qmp >= 0.0.6", "python3-rich >= 12.4"}),
    ):
        needs = set(rpms.run(f"rpm -qp --requires {name}-{VERSION}-1.noarch.rpm").splitlines())
        assert floors | more <= needs
    assert "python3-libvirt >= 9.0" in rpms.run(f"rpm -qp --recommends vcpu-host-{VERSION}-1.noarch.rpm")
    assert "/etc/vcpud/vcpud.conf" in rpms.run(f"rpm -qpc vcpu-guest-{VERSION}-1.noarch.rpm")


def test_the_packages_install_run_upgrade_and_leave_nothing(rpms: Rpms) -> None:
    files = " ".join(f"{name}-{VERSION}-1.noarch.rpm" for name in PACKAGES)
    rpms.run(_ANYWAY)
    rpms.run("find / -xdev -not -path '/build*' -not -path '/var/lib/rpm*' | sort >before")
    rpms.called()
    rpms.run(f"rpm -i --nodeps {files}")
    calls = rpms.called()
    assert "systemd-sysusers vcpuctl.conf" in calls
    assert "udevadm trigger --action=change --subsystem-match=virtio-ports" in calls
    assert not [call for call in calls if "start" in call], "there is no port here, and the host's service is off"
    for command in ("vcpuctl", "vcpud"):
        assert VERSION in rpms.run(f"{command} --version")
    rpms.run(f"rpm -U --nodeps --replacepkgs {files}")
    assert not [call for call in rpms.called() if "stop" in call or "disable" in call], "an upgrade ends nothing"
    rpms.run(f"rpm -e {' '.join(PACKAGES)}")
    calls = rpms.called()
    assert "systemctl stop vcpud.service" in calls
    assert "systemctl disable --now vcpuctl.socket vcpuctl.service" in calls
    assert "udevadm trigger --action=change --subsystem-match=virtio-ports" in calls, "the port loses its tags"
    left = rpms.run(
        "find / -xdev -not -path '/build*' -not -path '/var/lib/rpm*' | sort | comm -13 before -"
    ).splitlines()
    assert left == []
