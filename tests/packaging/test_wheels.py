# SPDX-License-Identifier: Apache-2.0
"""The wheels hold what an importer and another language's client need."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from debfile import Run


@pytest.fixture(scope="module")
def wheels(root: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The names in each wheel, by distribution."""
    out = tmp_path_factory.mktemp("wheels")
    uv = Path(sys.executable).parent / "uv"
    python = ("--python", sys.executable, "--no-build-isolation", "--offline")
    # uv looks for the build backend in the environment that is active.
    environment = {**os.environ, "VIRTUAL_ENV": str(Path(sys.executable).parents[1])}
    for part in ("proto", "host", "guest"):
        run(str(uv), "build", "--wheel", *python, "--out-dir", str(out), str(root / part), env=environment)
    return {path.name.split("-")[0]: set(zipfile.ZipFile(path).namelist()) for path in out.glob("*.whl")}


@pytest.mark.parametrize("package", ["vcpu_proto", "vcpu_host", "vcpu_guest"])
def test_a_wheel_says_that_its_package_is_typed_and_holds_no_test(wheels: dict[str, set[str]], package: str) -> None:
    assert f"{package}/py.typed" in wheels[package]
    assert all(name.startswith((f"{package}/", f"{package}-")) for name in wheels[package])


def test_the_contract_and_its_code_travel_together(wheels: dict[str, set[str]]) -> None:
    generated = {
        f"vcpu_proto/v1/{name}" for name in ("agent.proto", "agent_pb2.py", "agent_pb2.pyi", "agent_pb2_grpc.py")
    }
    assert generated <= wheels["vcpu_proto"]
