# SPDX-License-Identifier: Apache-2.0
"""The contract stays readable for what was released before, and its checked-in code is what it generates."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kit.until import DEADLINE

if TYPE_CHECKING:
    from debfile import Run

BUF = str(Path(sys.executable).parent / "buf")
PROTO = Path("src/vcpu_proto/v1/agent.proto")


@pytest.fixture
def edited(root: Path, tmp_path: Path) -> Path:
    """A copy of the contract that a test may spoil."""
    copy = tmp_path / "proto"
    (copy / PROTO.parent).mkdir(parents=True)
    shutil.copy(root / "proto/buf.yaml", copy)
    shutil.copy(root / "proto" / PROTO, copy / PROTO)
    return copy


def breaking(root: Path, contract: Path) -> str:
    """What buf has against ``contract`` as the successor of the contract in the tree; "" if nothing."""
    command = [BUF, "breaking", str(contract), "--against", str(root / "proto")]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False).stdout


def test_todays_contract_serves_the_peers_of_the_last_release(root: Path, run: Run) -> None:
    baseline = run(str(root / "packaging/tools/baseline.sh")).strip()
    run(BUF, "breaking", "proto", "--against", f".git#ref={baseline},subdir=proto", cwd=root)


def test_a_new_field_is_compatible_and_a_renumbered_one_is_not(root: Path, edited: Path) -> None:
    path, text = edited / PROTO, (edited / PROTO).read_text()
    old = "uint32 protocol_min = 1;"
    assert old in text
    path.write_text(text.replace(old, f"{old}\n  uint32 brand_new = 999;"))
    assert breaking(root, edited) == ""
    path.write_text(text.replace(old, "uint32 protocol_min = 999;"))
    assert "protocol_min" in breaking(root, edited)


def test_the_checked_in_code_is_what_the_contract_generates(root: Path, run: Run) -> None:
    run(str(root / "packaging/tools/proto.sh"), "--check")
