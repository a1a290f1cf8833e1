# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from vcpu_host.qmp.ages import too_old


@pytest.mark.parametrize(
    ("version", "commands", "code", "words"),
    [
        ((2, 6, 2), {"cpu-add", "query-cpus"}, "legacy-cpu-add", "QEMU 2.6.2 has no query-hotpluggable-cpus"),
        ((2, 9, 1), {"cpu-add", "query-hotpluggable-cpus"}, "qemu-too-old", "QEMU 2.9.1 has no query-cpus-fast"),
        ((1, 2, 0), {"query-cpus"}, "qemu-too-old", "no query-hotpluggable-cpus and no query-cpus-fast"),
    ],
)
def test_a_qemu_that_lacks_what_is_needed_is_told_with_what_it_has(
    version: tuple[int, int, int], commands: set[str], code: str, words: str
) -> None:
    reason = too_old(version, commands)
    assert reason is not None
    assert reason.code == code
    assert words in reason.text
    assert "2.12" in reason.hint


def test_a_qemu_with_both_ways_is_not_too_old() -> None:
    assert too_old((2, 12, 0), {"cpu-add", "query-hotpluggable-cpus", "query-cpus-fast"}) is None
