# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from kit.bench.peers import Said, Samples
from kit.bench.peers_report import figures, page

SIDES = {"guest": [0], "qemu": [0], "libvirt": [0, 1]}


def samples() -> Samples:
    seconds = {
        "plug_1": {"virsh": [1.0, 3.0, 2.0], "ours": [1.0, 1.0, 5.0], "ssh": [2.0, 2.0, 2.0]},
        "unplug_1": {"virsh": [10.0, 10.0, 11.0], "ours": [0.5, 0.5, 0.5], "ssh": [0.4, 0.5, 0.4]},
        "plug_8": {"virsh": [4.0], "ours": [2.0]},
        "unplug_8": {"virsh": [40.0], "ours": [2.0]},
    }
    said = Said("setvcpus web1 1 --live", 1, "error: timed\nout | look", 5.01, SIDES)
    return Samples(seconds, {"unplug_1": {"virsh": [said]}}, {"virsh": [0.1], "ours": [0.2]}, ["unplug 8: unknown"], 3)


def test_ratios_are_those_of_medians_and_ssh_is_held_against_local_plugs_and_unplugs() -> None:
    found = figures(samples())
    assert found["virsh_ratio"] == {"plug_1": 0.5, "unplug_1": 0.05, "plug_8": 0.5, "unplug_8": 0.05}
    assert found["ssh_ratio"] == round(2.4 / 1.5, 3)
    assert (found["rounds"], found["not_done"]) == (3, ["unplug 8: unknown"])
    assert set(found["reasons"]) == {*found["virsh_ratio"], "ssh"}


def test_the_page_has_the_spread_and_what_was_true_when_something_was_claimed() -> None:
    whole = samples()
    text = page({"versions": {"qemu": "11.1"}, **figures(whole)}, whole)
    assert "| plug_1 | 2.000 (1.000 to 3.000) | 1.000 (1.000 to 5.000) | 2.000 (2.000 to 2.000) | 0.5 |" in text
    assert "| unplug_1 | `setvcpus web1 1 --live` | 1 | 5.01 | 0 | 0 | 0, 1 | error: timed out / look |" in text
    assert "Not done, and its round not counted: unplug 8: unknown" in text


def test_a_round_is_taken_whole() -> None:
    whole = Samples()
    for _ in range(2):
        whole.take(samples(), {"virsh": 0.1, "ours": 0.3})
    assert whole.rounds == 2
    assert whole.seconds["plug_8"] == {"virsh": [4.0, 4.0], "ours": [2.0, 2.0]}
    assert whole.least == {"virsh": [0.1, 0.1], "ours": [0.3, 0.3]}
