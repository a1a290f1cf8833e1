# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzzer, from the captured records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FIXTURE = Path(__file__).parents[2] / "fixtures" / "rtas-hotplug-legacy.json"


def test_the_fuzzer_finds_no_crash_and_no_order_that_was_not_given(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for captured in json.loads(FIXTURE.read_text())["records"]:
        (corpus / captured["action"]).write_bytes(bytes.fromhex(captured["hex"]).ljust(120, b"\0"))
    options = ["-runs=50000", "-max_len=160", "-seed=1", f"-artifact_prefix={tmp_path}/", str(corpus)]
    run = subprocess.run(
        [sys.executable, "-m", "fuzz_rtas", *options],
        cwd=Path(__file__).parent,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert "Done 50000 runs" in run.stderr
