# SPDX-License-Identifier: Apache-2.0
"""The Grafana dashboard that is shipped, and its queries."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).resolve().parents[2] / "packaging/grafana/vcpuctl.json"
#: What Grafana puts in place of its variables, here so that queries show something at once.
_VARIABLES = {"$__rate_interval": "5m", "$__range": "5m", "$vm": ".*"}


def load() -> dict[str, Any]:
    """The dashboard as it is shipped."""
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def panels(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels that show something, rows apart."""
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def queries(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return each panel's title with each of its expressions, as Grafana would send it."""
    found = []
    for panel in panels(document):
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in _VARIABLES.items():
                expression = expression.replace(variable, value)
            found.append((panel["title"], expression))
    return found


def metrics_of(document: dict[str, Any]) -> set[str]:
    """Return the names of our metrics that stand anywhere in it, in queries and in variables."""
    return set(re.findall(r"\bvcpuctl_[a-z_]+", json.dumps([document["templating"], document["panels"]])))
