# SPDX-License-Identifier: Apache-2.0
"""The bill of materials of a release, as CycloneDX 1.5: what the three distributions need, and what is carried along.

Versions are the least that the distributions ask for: which ones a system has, its own package manager knows.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PARTS = ("proto", "host", "guest")
#: The licences of what is needed, as their distributions state them (SPDX).
LICENCES = {
    "grpcio": "Apache-2.0",
    "libvirt-python": "LGPL-2.1-or-later",
    "prometheus-client": "Apache-2.0",
    "protobuf": "BSD-3-Clause",
    "pyudev": "LGPL-2.1-or-later",
    "qemu.qmp": "LGPL-2.0-or-later",
    "rich": "MIT",
    "structlog": "Apache-2.0 OR MIT",
}
_NEED = re.compile(r"([A-Za-z0-9._-]+)(?:==|>=)([\w.]+)")


def make(root: Path, date: int) -> str:
    """Return the document for the tree, as of this date (seconds since 1970). Raise KeyError for an unknown licence."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    components: dict[str, dict[str, Any]] = {}
    depends: dict[str, list[str]] = {}
    for part in PARTS:
        project = tomllib.loads((root / part / "pyproject.toml").read_text())["project"]
        name = _reference(project["name"], version)
        components[name] = _component(project["name"], version, "Apache-2.0", project["description"])
        optional = [need for needs in project.get("optional-dependencies", {}).values() for need in needs]
        depends[name] = []
        for need in (*project["dependencies"], *optional):
            match = _NEED.match(need)
            if match is None:
                raise ValueError(f"{part} needs {need!r}, and no version of it")
            needed = _reference(*match.groups())
            depends[name].append(needed)
            if not match[1].startswith("vcpu-"):
                components.setdefault(needed, _component(match[1], match[2], LICENCES[match[1]], ""))
                components[needed]["scope"] = "optional" if need in optional else "required"
    vendored = re.search(r"^(qemu-?\.?qmp)==(\S+)", (root / "requirements/vendor.txt").read_text(), re.MULTILINE)
    if vendored is None:
        raise ValueError("requirements/vendor.txt pins no qemu.qmp")
    carried = components[_reference("qemu.qmp", vendored[2])]
    carried["properties"] = [{"name": "carried-in", "value": "vcpu-host (.deb): /usr/lib/vcpu-host/vendor"}]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(date, UTC).isoformat(),
            "component": {**_component("vcpuctl", version, "Apache-2.0", ""), "type": "application"},
        },
        "components": [components[name] for name in sorted(components)],
        "dependencies": [{"ref": name, "dependsOn": sorted(depends[name])} for name in sorted(depends)],
    }
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return (
        json.dumps({**document, "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}"}, indent=2) + "\n"
    )


def _reference(name: str, version: str) -> str:
    return f"pkg:pypi/{name.lower()}@{version}"


def _component(name: str, version: str, licence: str, description: str) -> dict[str, Any]:
    known = {"expression": licence} if " " in licence else {"license": {"id": licence}}
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _reference(name, version),
        "name": name,
        "version": version,
        "purl": _reference(name, version),
        "licenses": [known],
    }
    return {**component, "description": description} if description else component
