# SPDX-License-Identifier: Apache-2.0
"""The Grafana dashboard: what Grafana's own model says of it, and that it shows what there is to show.

tests/component/test_metrics.py has its queries answered by a real Prometheus.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from kit.dashboard import faults
from kit.dashboard_queries import load, metrics_of, panels
from vcpu_host.service.metrics import HELP

#: What Prometheus makes of one metric.
_SUFFIXES = ("", "_total", "_bucket", "_count", "_sum")


def test_grafanas_model_has_every_field_and_every_value_of_it() -> None:
    assert faults(load()) == []


def _panel(document: dict[str, Any], title: str) -> dict[str, Any]:
    (found,) = (panel for panel in document["panels"] if panel["title"] == title)
    chosen: dict[str, Any] = found
    return chosen


@pytest.mark.parametrize(
    "spoil",
    [
        lambda panel: panel.update(grid=1),
        lambda panel: panel.update(id="five"),
        lambda panel: panel["targets"][0].update(exp="x"),
        lambda panel: panel["targets"][0].update(instant="yes"),
        lambda panel: panel["options"]["legend"].update(placement="top"),
        lambda panel: panel["fieldConfig"]["defaults"]["custom"].update(drawStyle="circle"),
        lambda panel: panel["fieldConfig"]["defaults"]["custom"]["stacking"].update(mode="heap"),
        lambda panel: panel["fieldConfig"]["defaults"]["custom"].update(fillOpacity=True),
    ],
)
def test_a_fault_would_be_found(spoil: Callable[[dict[str, Any]], None]) -> None:
    document = copy.deepcopy(load())
    spoil(_panel(document, "vCPUs by state"))
    assert faults(document)


def test_it_names_every_metric_and_no_other() -> None:
    known = {name + suffix: name for name in HELP for suffix in _SUFFIXES}
    named = metrics_of(load())
    assert named <= known.keys()
    assert {known[name] for name in named} == HELP.keys()


def test_every_query_about_vms_is_about_those_that_are_chosen() -> None:
    for panel in panels(load()):
        for target in panel["targets"]:
            of_the_service = {"vcpuctl_build_info", "vcpuctl_exposition_errors"}
            if not any(name in target["expr"] for name in of_the_service):
                assert 'vm=~"$vm"' in target["expr"], panel["title"]
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_vms_can_be_chosen_one_several_or_all() -> None:
    variables = {variable["name"]: variable for variable in load()["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert (variables["vm"]["multi"], variables["vm"]["includeAll"]) == (True, True)


def test_no_two_panels_have_one_id_or_one_place() -> None:
    document = load()
    ids = [panel["id"] for panel in document["panels"]]
    assert len(ids) == len(set(ids))
    taken = [
        (panel["gridPos"]["x"] + dx, panel["gridPos"]["y"] + dy)
        for panel in document["panels"]
        for dx, dy in itertools.product(range(panel["gridPos"]["w"]), range(panel["gridPos"]["h"]))
    ]
    assert len(taken) == len(set(taken))
    assert all(x < 24 for x, _ in taken)


def test_every_panel_says_what_it_shows() -> None:
    assert [panel["title"] for panel in panels(load()) if not panel["title"] or not panel["description"]] == []
