# SPDX-License-Identifier: Apache-2.0
"""`python3 -m vcpu_guest` is vcpud."""

from __future__ import annotations

import sys

from vcpu_guest.main import main

sys.exit(main())
