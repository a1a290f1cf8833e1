# SPDX-License-Identifier: Apache-2.0
"""Makes a QEMU that waits for a VM (-incoming) fit for it: what the VM has and it lacks is plugged.

No guest runs there yet, so device_add is all there is to it, and nothing can be taken back: device_del only asks a
guest. Hence nothing at all is plugged where something else would be in the way.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import ports
from ..core.migration.compare import Comparison, compare, take_over
from ..core.migration.shape import Place, Shape
from ..core.reason import Outcome, Reason
from ..errors import QemuError, RefusedError


@dataclass(frozen=True, slots=True)
class Prepared:
    """How it ended. ``comparison`` is that of afterwards; ``plugged`` what was plugged; ``reason`` who said no."""

    outcome: Outcome
    comparison: Comparison
    plugged: tuple[Place, ...] = ()
    reason: Reason | None = None


async def prepare(source: Shape, vmm: ports.Vmm, journal: ports.Journal) -> Prepared:
    """Plug what is missing, look again, and leave what is pending at the source on the destination's record.

    Raise QemuGoneError if the destination goes away.
    """
    host, queues = await vmm.look(), await vmm.queues()
    comparison = compare(source, host, queues)
    if comparison.incurable:
        return Prepared(Outcome.REFUSED, comparison)
    plugged: list[Place] = []
    reason: Reason | None = None
    for place in comparison.missing:
        try:
            await vmm.plug(host.slots[place.index], place.name)
        except QemuError as error:
            reason = error.reason
            break
        plugged.append(place)
    host = await vmm.look()
    comparison = compare(source, host, queues)
    if not comparison.obstacles:
        try:
            await journal.save(take_over(source.pending, host))
        except RefusedError as error:
            reason = error.reason  # what was plugged stays, and has to be said
        else:
            return Prepared(Outcome.DONE, comparison, tuple(plugged))
    return Prepared(Outcome.PARTIAL if plugged else Outcome.REFUSED, comparison, tuple(plugged), reason)
