# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzzer, from seeds that reach every handler."""

from __future__ import annotations

from pathlib import Path

from kit.fakes import fuzzing
from vcpu_proto.link.frames import Frame, Kind, encode


def test_the_fuzzer_finds_nothing_in_a_short_run(tmp_path: Path) -> None:
    # Without the checksum, which the fuzzer puts there itself.
    seeds = {kind.name.lower(): b"\x07" + encode(Frame(kind, b"\x01" * 8, 0, b"\x02" * 9))[:-5] for kind in Kind}
    fuzzing.run(Path(__file__).with_name("fuzz_frames.py"), seeds, tmp_path, runs=6000, max_len=400)
