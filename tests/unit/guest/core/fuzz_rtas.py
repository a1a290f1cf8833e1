# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of the RTAS record parser.

``cd tests/unit/guest && python -m fuzz_rtas -runs=1000000``: options and arguments are libFuzzer's. Any exception but
RtasError is a finding, and so is any order that the bytes do not spell out.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["vcpu_guest.core.rtas_records"]):
    from vcpu_guest.core.rtas_records import Action, RtasError, parse


def check(data: bytes) -> None:
    try:
        found = parse(data)
    except RtasError:
        return
    if found is None:
        return
    assert found.action in Action
    assert found.drc_index >> 28 == 1
    # the section, with a CPU, the action, an index, whatever is reserved, and the index
    section = data.index(b"HP", 24)
    while data[section + 8 : section + 11] != bytes([1, found.action.value, 2]) or (
        data[section + 12 : section + 16] != found.drc_index.to_bytes(4, "big")
    ):
        section = data.index(b"HP", section + 1)
    # and it lies inside of what the header says
    assert section + 16 <= 12 + int.from_bytes(data[8:12], "big") <= len(data)


def main() -> None:
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
