# SPDX-License-Identifier: Apache-2.0
"""vcpud: the guest agent of vcpuctl."""

from __future__ import annotations

__version__ = "0.1.0"
