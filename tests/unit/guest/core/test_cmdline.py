# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_guest.core import cmdline


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", ()),
        ("quiet splash", ()),
        (
            "nosmt=force  nohz-full=1-3\tmitigations=auto,nosmt",
            ("nosmt=force", "nohz-full=1-3", "mitigations=auto,nosmt"),
        ),
        ('dyndbg="file a +p; acpi=off" nopv', ("nopv",)),
        ('"isolcpus=1 2" nr_cpus="4"', ('"isolcpus=1 2"', 'nr_cpus="4"')),
        ("xacpi=off acpi.nr_cpus=1 nr_cpu=1", ()),
        ("maxcpus=2 -- nr_cpus=4", ("maxcpus=2",)),
        ("acpi=\x1b[2J nolapic", ("nolapic",)),
    ],
)
def test_known_arguments_are_taken_as_they_stand(line: str, found: tuple[str, ...]) -> None:
    assert cmdline.bearing_on_cpus(line) == found


@given(st.text())
def test_whatever_the_line_is_what_is_taken_is_bounded_and_printable(line: str) -> None:
    found = cmdline.bearing_on_cpus(f"nr_cpus={line} " * 40)
    assert len(found) <= cmdline.MAX_ARGUMENTS
    assert all(len(argument) <= cmdline.MAX_LENGTH and argument.isprintable() for argument in found)


def test_those_that_limit_the_possible_cpus_and_those_that_switch_smt_off_are_told_apart() -> None:
    line = "nr-cpus=4 nosmt=force maxcpus=2 l1tf=full mitigations=auto,nosmt mds=full l1tf=flush smt=2 acpi=off"
    arguments = cmdline.bearing_on_cpus(line)
    assert cmdline.limiting_possible(arguments) == ("nr-cpus=4", "maxcpus=2")
    assert cmdline.against_smt(arguments) == ("nosmt=force", "l1tf=full", "mitigations=auto,nosmt")
