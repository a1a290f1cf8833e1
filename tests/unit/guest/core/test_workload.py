# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from vcpu_guest.core import workload


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"nginx", "nginx"),
        (b"a\x1b[2J\n", "a\\x1b[2J\\n"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\u202egnp", "\\u202egnp"),
        (b"x" * 300, "x" * 253 + "..."),
        ("中" * 85, "中" * 85),
        ("中" * 86, "中" * 84 + "..."),
        ("x" + "é" * 128, "x" + "é" * 126 + "..."),
        (b"\x00" * 300, "\\x00" * 63 + "\\..."),
    ],
)
def test_names_come_out_on_one_line_printable_and_cut(name: bytes | str, shown: str) -> None:
    found = workload.escaped(name)
    assert found == shown
    assert len(found.encode()) <= workload.MAX_NAME
    assert found.isprintable()


def test_a_name_with_parentheses_and_spaces_does_not_move_the_fields_of_stat() -> None:
    fields = b" ".join([b"S", *[b"0"] * 5, b"2129984", *[b"0"] * 12, b"77", b"0"])
    assert workload.stat_fields(b"12 (a) b (c) " + fields) == (b"a) b (c", True, 77)
    assert workload.stat_fields(b"") is None
    assert workload.stat_fields(b"12 (a) S 1 2") is None


def test_a_mask_that_was_not_read_to_its_end_is_none() -> None:
    assert workload.allowed(b"Name:\tx\nCpus_allowed_list:\t0,2-3\nMems_allowed_list:\t0\n") == frozenset({0, 2, 3})
    assert workload.allowed(b"Name:\tx\nCpus_allowed_list:\t0,2-3") is None


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/system.slice/mysql.service", "mysql.service"),
        ("/system.slice/mysql.service/sub/deep", "mysql.service"),
        ("/user.slice/user-1.slice/user@1.service/app.slice/x.scope", "x.scope"),
        ("/machine.slice", ""),
        ("/", ""),
        ("", ""),
    ],
)
def test_a_threads_unit_is_the_innermost_one_of_its_cgroup(cgroup: str, unit: str) -> None:
    assert workload.unit_of(cgroup) == unit


@pytest.mark.parametrize(
    ("texts", "cpus"),
    [
        ([b"[Service]\nCPUAffinity=3\n"], {3}),
        ([b"[Service]\nCPUAffinity=1 2,5-6\n"], {1, 2, 5, 6}),
        ([b"[Service]\nCPUAffinity=1\nCPUAffinity=3\n"], {1, 3}),
        ([b"[Service]\nCPUAffinity=1\n", b"[Service]\nCPUAffinity=\nCPUAffinity=2\n"], {2}),
        ([b"[Service]\nCPUAffinity = 4 \\\n 5\n"], {4, 5}),
        ([b"[Service]\nCPUAffinity=numa\n"], set()),
        ([b"[Service]\n#CPUAffinity=3\n[Unit]\nCPUAffinity=4\n"], set()),
        ([b"[Service]\nCPUAffinity=\xff\n"], set()),
        ([b"[Service]\nCPUAffinity=99999999\n"], set()),
    ],
)
def test_cpuaffinity_is_read_as_systemd_reads_it(texts: list[bytes], cpus: set[int]) -> None:
    assert workload.cpu_affinity(texts) == cpus


def test_a_quota_is_told_in_cpus() -> None:
    assert workload.quota_of("200000 100000") == 2.0
    for none in ("max 100000", "", "1 0", "x y"):
        assert workload.quota_of(none) is None


def test_masks_are_forgotten_by_the_kernels_that_were_seen_to_and_kept_by_the_others() -> None:
    assert workload.forgets_masks("6.1.0-56-cloud-amd64")
    assert not workload.forgets_masks("6.12.118+deb13-cloud-amd64")
    assert not workload.forgets_masks("7.2.13")
    assert not workload.forgets_masks("odd")
