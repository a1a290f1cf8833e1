# SPDX-License-Identifier: Apache-2.0
"""The collection as Ansible's own checker, builder and reader see it: on the oldest version and on the newest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import collection
import pytest
from kit.lab import ansible

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long]

EACH = pytest.mark.parametrize("which", ["newest", "oldest"])


def core(which: str, tree: Path) -> ansible.AnsibleCore:
    return ansible.find(which, tree, lambda line: print(line, file=sys.stderr))


@EACH
@pytest.mark.timeout(3000)
def test_ansible_test_finds_no_fault_and_would_find_one(which: str, tmp_path: Path) -> None:
    tree = collection.lay_out(tmp_path)
    tester = core(which, tree)
    clean = tester.sanity(tree)
    assert clean.returncode == 0, clean.stdout[-6000:] + clean.stderr[-6000:]
    module = tree / "plugins/modules/vcpu_info.py"
    module.write_text(module.read_text().replace("      - How long a VM may take to answer, such as C(10s).\n", ""))
    assert tester.sanity(tree, "--test", "validate-modules").returncode == 1


@EACH
@pytest.mark.timeout(3000)
def test_the_tarball_installs_offline_and_is_read(which: str, tmp_path: Path) -> None:
    tester = core(which, collection.lay_out(tmp_path))
    tarball = collection.build(tmp_path / "out")
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    installed = tmp_path / "installed"
    environment = {**os.environ, "HOME": str(tmp_path), "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg")}
    environment |= dict.fromkeys(("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_COLLECTIONS_PATHS"), str(installed))

    def run(program: str, *words: str) -> str:
        # in a network of its own, which has no way out
        argv = ["unshare", "--map-root-user", "--net", tester.program(program), *words]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("ansible-galaxy", "collection", "install", "--offline", "-p", str(installed), str(tarball))
    told = json.loads(
        run("ansible-doc", "--json", *(f"vcpuctl.vcpu.vcpu_{name}" for name in ("scale", "info", "channel")))
    )
    assert {len(each["examples"]) > 0 and len(each["return"]) > 0 for each in told.values()} == {True}
    roles = json.loads(run("ansible-doc", "--json", "--type", "role", "--list", "vcpuctl.vcpu"))
    assert set(roles) == {"vcpuctl.vcpu.vcpu_guest", "vcpuctl.vcpu.vcpu_host"}
    run("ansible-galaxy", "collection", "verify", "--offline", "-p", str(installed), "vcpuctl.vcpu")


def test_the_same_tree_gives_the_same_tarball(tmp_path: Path) -> None:
    first, second = collection.build(tmp_path / "one"), collection.build(tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        names = set(tar.getnames())
    assert {"LICENSE", "README.md", "meta/runtime.yml", "roles/vcpu_host/meta/argument_specs.yml"} <= names
    assert not {name for name in names if "__pycache__" in name or name.startswith("tests/output")}
