# SPDX-License-Identifier: Apache-2.0
"""Which VMs words name, and what a file wants of each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_host.core.fleet import Goal, GoalsError, NoMatchError, goals, named

RIGHT = {
    "a number": ("[vms]\nweb1 = 4\n", [("web1", 4)]),
    "a table": ("[vms.web2]\nvcpus = 8\n", [("web2", 8)]),
    "an inline table": ("[vms]\nweb2 = { vcpus = 8 }\n", [("web2", 8)]),
    "both, in the order of the file": ("[vms]\nb = 4\na = 1\n[vms.c]\nvcpus = 2\n", [("b", 4), ("a", 1), ("c", 2)]),
    "a name with a dot": ('[vms]\n"db.example" = 4\n', [("db.example", 4)]),
    "a version": ("schema_version = 1\n[vms]\nweb1 = 4\n", [("web1", 4)]),
    "comments": ("# ours\n[vms] # all\nweb1 = 0x10\n", [("web1", 16)]),
    "JSON": ('{"vms": {"web1": 4, "web2": {"vcpus": 8}}}', [("web1", 4), ("web2", 8)]),
    "JSON behind blanks": ('\n \t{"schema_version": 1, "vms": {"web1": 4}}\n', [("web1", 4)]),
    "TOML with a byte order mark": ("\ufeff[vms]\nweb1 = 4\n", [("web1", 4)]),
    "JSON with a byte order mark": ('\ufeff{"vms": {"web1": 4}}', [("web1", 4)]),
    "the largest number": ("[vms]\nweb1 = 4294967295\n", [("web1", 4294967295)]),
}

WRONG = {
    "nothing": ("", "vms is missing"),
    "no table": ("vms = 4\n", "no table of VMs"),
    "no VM": ("[vms]\n", "names no VM"),
    "VMs beside vms": ("[vms]\nweb1 = 4\n[web2]\nvcpus = 4\n", "'web2'"),
    "VMs at the top": ("web1 = 4\n", "'web1'"),
    "none": ("[vms]\nweb1 = 0\n", "at least 1"),
    "less than none": ("[vms]\nweb1 = -1\n", "'web1'"),
    "too many": ("[vms]\nweb1 = 4294967296\n", "'web1'"),
    "a fraction": ("[vms]\nweb1 = 4.0\n", "'web1'"),
    "a yes": ("[vms]\nweb1 = true\n", "'web1'"),
    "a text": ('[vms]\nweb1 = "4"\n', "'web1'"),
    "a list": ("[vms]\nweb1 = [4]\n", "'web1'"),
    "a table without the number": ("[vms.web1]\n", "vcpus is missing"),
    "a table with a wrong number": ("[vms.web1]\nvcpus = false\n", "False"),
    "a key that is none": ("[vms.web1]\nvcpu = 4\n", "'vcpu'"),
    "a libvirt without a domain": ('[vms.web1]\nvcpus = 4\nlibvirt = "x"\n', "together"),
    "a domain without a libvirt": ('[vms.web1]\nvcpus = 4\ndomain = "x"\n', "together"),
    "a domain that is no text": ('[vms.web1]\nvcpus = 4\nlibvirt = "x"\ndomain = 7\n', "domain is 7"),
    "a monitor of no domain": ("[vms.web1]\nvcpus = 4\nmonitor = false\n", "beside libvirt"),
    "a monitor that is neither": (
        '[vms.web1]\nvcpus = 4\nlibvirt = "x"\ndomain = "x"\nmonitor = 0\n',
        "true or false",
    ),
    "a libvirt that is empty": ('[vms.web1]\nvcpus = 4\nlibvirt = ""\ndomain = "x"\n', "libvirt is ''"),
    "a dot that is not quoted": ("[vms]\ndb.example = 4\n", '"db.example"'),
    "a double in TOML": ("[vms]\nweb1 = 4\nweb1 = 5\n", "overwrite"),
    "a double in JSON": ('{"vms": {"web1": 4, "web1": 5}}', "'web1' is there twice"),
    "a double within a VM": ('{"vms": {"web1": {"vcpus": 4, "vcpus": 5}}}', "'vcpus' is there twice"),
    "no TOML": ("[vms\n", "at line 1"),
    "no JSON": ('{"vms": {', "line 1"),
    "null": ('{"vms": {"web1": null}}', "None"),
    "another version": ("schema_version = 2\n[vms]\nweb1 = 4\n", "schema_version is 2"),
    "a version that is none": ("schema_version = true\n[vms]\nweb1 = 4\n", "schema_version is True"),
    "brackets without an end": ('{"vms": ' + "[" * 100_000, "recursion"),
    "a number of many digits": ('{"vms": {"web1": ' + "9" * 5000 + "}}", "integer string"),
    "the same in TOML": ("[vms]\nweb1 = " + "9" * 5000, "integer string"),
}


def test_a_file_may_say_itself_which_domain_a_vm_is() -> None:
    text = '[vms]\nweb1 = 4\n[vms.db1]\nvcpus = 2\nlibvirt = "qemu:///system"\ndomain = "db"\n'
    assert goals(text) == (Goal("web1", 4), Goal("db1", 2, "qemu:///system", "db"))
    assert goals(text + "monitor = false\n")[1] == Goal("db1", 2, "qemu:///system", "db", monitor=False)


@pytest.mark.parametrize("case", RIGHT)
def test_what_a_file_wants_is_read_in_its_order(case: str) -> None:
    text, wanted = RIGHT[case]
    assert goals(text) == tuple(Goal(name, vcpus) for name, vcpus in wanted)


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_wrong_says_where(case: str) -> None:
    text, told = WRONG[case]
    with pytest.raises(GoalsError) as error:
        goals(text)
    assert told in str(error.value)
    assert len(str(error.value)) < 600


@given(st.text() | st.text("{}[]\",:.=\n vms0'\\").map(lambda text: "[vms]\n" + text))
def test_any_text_is_goals_or_an_error_that_says_so(text: str) -> None:
    try:
        found = goals(text)
    except GoalsError:
        return
    assert found
    assert all(goal.vcpus >= 1 for goal in found)


def test_words_and_patterns_name_each_vm_once_and_in_their_order() -> None:
    known = ["db1", "web1", "web2", "web10"]
    assert named(["web2", "web*", "db?"], known) == ["web2", "web1", "web10", "db1"]
    assert named(["web[12]"], known) == ["web1", "web2"]
    assert named(["*"], known) == known
    assert named(["nobody", "nobody"], known) == ["nobody"]


def test_a_pattern_that_fits_no_name_is_an_error() -> None:
    with pytest.raises(NoMatchError, match=r"Web\*"):
        named(["db1", "Web*"], ["db1", "web1"])
