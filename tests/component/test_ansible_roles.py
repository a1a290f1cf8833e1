# SPDX-License-Identifier: Apache-2.0
"""Parts of the roles on this machine, in directories of the test's own: what pip brings, and what is taken away."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from kit.component.ansible import Played, play

pytestmark = pytest.mark.timeout(300)


def played(folder: Path, *tasks: dict[str, Any], check: bool = False) -> Played:
    """Run these tasks here, by who is root: in a namespace of users where the tests are not."""
    program = Path(sys.executable).parent / "ansible-playbook"
    if os.geteuid() != 0:
        wrapped = folder / "as-root"
        wrapped.write_text(f'#!/bin/sh\nexec unshare --map-root-user {program} "$@"\n')
        wrapped.chmod(0o755)
        program = wrapped
    book = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": list(tasks)}]
    interpreter = f"ansible_python_interpreter={sys.executable}"
    words = ("--inventory", "localhost,", "--extra-vars", interpreter, *(["--check"] if check else []))
    return play(book, os.environ, folder, *words, program=str(program), within=250)


def part(of: str, **options: Any) -> dict[str, Any]:
    """The task that does a part of the guests' role."""
    role = {"name": "vcpuctl.vcpu.vcpu_guest", "tasks_from": of}
    return {
        "ansible.builtin.include_role": role,
        "vars": {f"vcpu_guest_{name}": value for name, value in options.items()},
    }


def test_a_directory_that_is_no_environment_of_python_is_not_taken_away(tmp_path: Path) -> None:
    """Such as /usr/local, into which pip installs as well."""
    for name in ("local/bin/pip", "venv/bin/pip", "venv/pyvenv.cfg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    done = played(tmp_path, *(part("environment", venv=str(tmp_path / name)) for name in ("local", "venv", "nowhere")))
    assert done.status == 0, done.words
    assert (tmp_path / "local/bin/pip").exists()
    assert not (tmp_path / "venv").exists()
    assert done.stats["localhost"]["changed"] == 1


def test_names_that_vcpuctl_does_not_take_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    """Their files would be an error wherever all VMs are meant, or lie elsewhere."""
    names = ["web 1", "-web1", "../web1", "web1.d/x", "web1\n", ""]
    role = {"name": "vcpuctl.vcpu.vcpu_host", "tasks_from": "present"}
    vms = {"web1.a-b_c": {"qmp": "/q"}, "101": {"qmp": "/q"}, **{name: {"qmp": "/q"} for name in names}}
    given = {"vcpu_host_vms": vms, "vcpu_host_packages": ["/nowhere/vcpu-host.deb"]}
    done = played(tmp_path, {"ansible.builtin.include_role": role, "vars": given}, check=True)
    refused = done.task("vcpuctl.vcpu.vcpu_host : Refuse names that vcpuctl does not take")
    assert (done.status, refused["ended"]) == (2, "failed")
    assert refused["msg"].startswith(f"vcpu_host_vms has {', '.join(map(json.dumps, names))}. A name")


def debian_package(folder: Path, build: str) -> str:
    """A package of one version, which differs by its build in nothing that apt looks at."""
    tree = folder / build
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN").chmod(0o755)  # dpkg-deb takes no other than 0755 to 0775, whatever the umask is
    fields = {"Package": "demo", "Version": "1.0", "Architecture": "all", "Maintainer": "m <m@m>", "Description": "d"}
    (tree / "DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    (tree / "DEBIAN/md5sums").write_text(f"{hashlib.md5(build.encode()).hexdigest()}  demo\n")
    (tree / "demo").write_text(build)
    subprocess.run(["dpkg-deb", "--build", str(tree), f"{tree}.deb"], check=True)
    return f"{tree}.deb"


def test_another_build_of_a_packages_version_is_installed_and_the_same_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt passes over a package of a version that is there, unless its size or what it needs has changed."""
    first, second = (debian_package(tmp_path, build) for build in ("first", "a second"))
    installed = tmp_path / "dpkg"
    (installed / "info").mkdir(parents=True)
    control = (tmp_path / "first/DEBIAN/control").read_text()
    (installed / "status").write_text(f"Status: install ok installed\n{control}\n")
    (installed / "info/demo.list").write_text("/.\n/demo\n")
    (installed / "info/demo.md5sums").write_bytes((tmp_path / "first/DEBIAN/md5sums").read_bytes())
    monkeypatch.setenv("DPKG_ADMINDIR", str(installed))
    apt = tmp_path / "bin/apt-get"
    apt.parent.mkdir()
    said = "0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded."
    apt.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/called\necho "{said}"\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt.parent}:{os.environ['PATH']}")
    done = played(tmp_path, part("debs", files=[first]), part("debs", files=[first, second]))
    assert done.status == 0, done.words
    called = [line for line in (tmp_path / "called").read_text().splitlines() if "--simulate" not in line]
    assert ["--reinstall" in line for line in called] == [False, True]
    assert [line.endswith(file) for line, file in zip(called, (first, second), strict=True)] == [True, True]


def wheel(folder: Path, build: str) -> str:
    """A wheel of one version, which differs by its build."""
    path = folder / build / "demo-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("demo.py", f"BUILD = '{build}'\n")
        archive.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
        archive.writestr("demo-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("demo-1.0.dist-info/RECORD", "demo.py,,\ndemo-1.0.dist-info/METADATA,,\n")
    return str(path)


def test_another_build_of_a_version_is_installed_also_after_a_run_that_failed_on_it(tmp_path: Path) -> None:
    """pip passes over a wheel of a version that it has."""
    venv = tmp_path / "venv"

    def install(build: str, arguments: str = "--no-index") -> dict[str, Any]:
        return part("wheels", venv=str(venv), pip_arguments=arguments, wheels=[str(tmp_path / build / name)])

    name = "demo-1.0-py3-none-any.whl"
    for build in ("first", "second"):
        wheel(tmp_path, build)
    failing = {"block": [install("second", "--no-such-option")], "rescue": [{"name": "failed", "debug": {}}]}
    # Once more at the end: then there is nothing to do.
    done = played(tmp_path, install("first"), failing, install("second"), install("second"))
    assert done.status == 0, done.words
    assert done.task("failed")["ended"] == "ok"
    (demo,) = venv.glob("lib/python*/site-packages/demo.py")
    assert demo.read_text() == "BUILD = 'second'\n"
    assert done.task("vcpuctl.vcpu.vcpu_guest : Install the wheels")["changed"] is False
    assert done.task("vcpuctl.vcpu.vcpu_guest : Keep in mind which wheels are installed")["changed"] is False
