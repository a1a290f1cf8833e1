# SPDX-License-Identifier: Apache-2.0
"""The wheels hold what an importer and another language's client need."""

from __future__ import annotations

import os
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from debfile import Run


@pytest.fixture(scope="module")
def archives(root: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a source archive of each distribution, and with the wheel that is built from it."""
    out = tmp_path_factory.mktemp("wheels")
    uv = Path(sys.executable).parent / "uv"
    python = ("--python", sys.executable, "--no-build-isolation", "--offline")
    # uv looks for the build backend in the environment that is active.
    environment = {**os.environ, "VIRTUAL_ENV": str(Path(sys.executable).parents[1])}
    for part in ("proto", "host", "guest"):
        run(str(uv), "build", *python, "--out-dir", str(out), str(root / part), env=environment)
    return out


@pytest.fixture(scope="module")
def wheels(archives: Path) -> dict[str, set[str]]:
    """The names in each wheel, by distribution."""
    return {path.name.split("-")[0]: set(zipfile.ZipFile(path).namelist()) for path in archives.glob("*.whl")}


@pytest.mark.parametrize("package", ["vcpu_proto", "vcpu_host", "vcpu_guest"])
def test_a_wheel_says_that_its_package_is_typed_and_holds_no_test(wheels: dict[str, set[str]], package: str) -> None:
    assert f"{package}/py.typed" in wheels[package]
    assert all(name.startswith((f"{package}/", f"{package}-")) for name in wheels[package])


def test_the_contract_and_its_code_travel_together(wheels: dict[str, set[str]]) -> None:
    generated = {
        f"vcpu_proto/v1/{name}" for name in ("agent.proto", "agent_pb2.py", "agent_pb2.pyi", "agent_pb2_grpc.py")
    }
    assert generated <= wheels["vcpu_proto"]


def test_the_guests_wheel_and_its_sources_carry_what_makes_a_service_of_the_command(archives: Path, root: Path) -> None:
    places = {
        "vcpud.service": "systemd/vcpud.service",
        "60-vcpud.rules": "udev/60-vcpud.rules",
        "vcpud.conf": "vcpud.conf",
        "vcpud.8": "man/vcpud.8",
    }
    expected = {name: (root / "packaging" / place).read_bytes() for name, place in places.items()}
    (wheel,) = archives.glob("vcpu_guest-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {name: archive.read(f"vcpu_guest/shipped/{name}") for name in expected} == expected
    (sources,) = archives.glob("vcpu_guest-*.tar.gz")
    with tarfile.open(sources) as tar:
        found = {Path(member.name).name: member for member in tar.getmembers() if "/shipped/" in member.name}
        assert found.keys() == expected.keys()
        for name, member in found.items():
            file = tar.extractfile(member)
            assert file is not None
            assert file.read() == expected[name]
