# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzzer, from the captured records."""

from __future__ import annotations

import json
from pathlib import Path

from kit.fakes import fuzzing

FIXTURE = Path(__file__).parents[3] / "fixtures" / "rtas-hotplug-legacy.json"


def test_the_fuzzer_finds_no_crash_and_no_order_that_was_not_given(tmp_path: Path) -> None:
    captured = json.loads(FIXTURE.read_text())["records"]
    seeds = {record["action"]: bytes.fromhex(record["hex"]).ljust(120, b"\0") for record in captured}
    fuzzing.run(Path(__file__).with_name("fuzz_rtas.py"), seeds, tmp_path, runs=50000, max_len=160)
