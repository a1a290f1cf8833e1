# SPDX-License-Identifier: Apache-2.0
"""Holds every document that a unit test has made against its schema.

Fuzzers are left out where their engine cannot be had: it comes for some Pythons only (pyproject.toml).
"""

from __future__ import annotations

from importlib.util import find_spec

from hypothesis import settings
from kit.documents import checked
from vcpu_host import documents

# A verdict on time otherwise: hypothesis gives each of its examples 200 ms.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

# The same decoders are fed by hypothesis everywhere (test_frames.py, test_rtas_records.py).
collect_ignore_glob = [] if find_spec("atheris") else ["*/test_fuzz_*.py"]

for _name in ("error", "view", "plan", "result", "findings", "export", "comparison", "prepared", "assigned"):
    setattr(documents, f"of_{_name}", checked(getattr(documents, f"of_{_name}")))
