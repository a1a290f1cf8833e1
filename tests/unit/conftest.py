# SPDX-License-Identifier: Apache-2.0
"""Leaves out the fuzzers where their engine cannot be had: it comes for some Pythons only (pyproject.toml)."""

from __future__ import annotations

from importlib.util import find_spec

# The same decoders are fed by hypothesis everywhere (test_frames.py, test_rtas_records.py).
collect_ignore_glob = [] if find_spec("atheris") else ["*/test_fuzz_*.py"]
