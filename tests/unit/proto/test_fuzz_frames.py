# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzzer, from seeds that reach every handler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from vcpu_proto.link.frames import Frame, Kind, encode


def test_the_fuzzer_finds_nothing_in_a_short_run(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for kind in Kind:
        # Without the checksum, which the fuzzer puts there itself.
        seed = encode(Frame(kind, b"\x01" * 8, 0, b"\x02" * 9))[:-5]
        (corpus / kind.name.lower()).write_bytes(b"\x07" + seed)
    where = [f"-artifact_prefix={tmp_path}/", str(corpus)]
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "fuzz_frames",
            "-runs=20000",
            "-max_len=400",
            "-seed=1",
            *where,
        ],
        cwd=Path(__file__).parent,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    assert "Done 20000 runs" in run.stderr
