# SPDX-License-Identifier: Apache-2.0
"""How property tests run here: without a limit on one example's time, which only says how busy the machine is."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
