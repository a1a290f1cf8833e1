# SPDX-License-Identifier: Apache-2.0
"""A short run of a libFuzzer program that lies beside its test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def run(program: Path, seeds: Mapping[str, bytes], scratch: Path, *, runs: int, max_len: int) -> None:
    """Fuzz from these seeds; AssertionError with the last of what the fuzzer said if it found anything."""
    corpus = scratch / "corpus"
    corpus.mkdir()
    for name, seed in seeds.items():
        (corpus / name).write_bytes(seed)
    options = [f"-runs={runs}", f"-max_len={max_len}", "-seed=1", f"-artifact_prefix={scratch}/", str(corpus)]
    ended = subprocess.run(
        [sys.executable, "-m", program.stem, *options],
        cwd=program.parent,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert f"Done {runs} runs" in ended.stderr
