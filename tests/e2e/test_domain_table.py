# SPDX-License-Identifier: Apache-2.0
"""Every command on domains of each libvirt, by each way to it, with a save and a restore after each kind of change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e.domain_trial import CASES, Case, tried
from kit.e2e.domains import DomainMachine

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_every_command_on_domains(case: Case, domain_machines: Callable[..., DomainMachine]) -> None:
    tried(case, domain_machines(case.suite, **case.changes))
