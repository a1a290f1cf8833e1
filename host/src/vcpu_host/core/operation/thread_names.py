# SPDX-License-Identifier: Apache-2.0
"""The threads of all jobs, by the identity that they have in the guest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .slot_job import Job
from .thread_evidence import ThreadEvidence


class ThreadNames:
    """Whose an identity is. Mostly that follows from the slot and never changes.

    Where it follows from the order of plugging, QEMU shows another identity than was expected if a plug before it
    failed, or another client plugged a CPU.
    """

    __slots__ = ("_by_name",)

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._by_name = {thread.firmware_id: (job, thread) for job in jobs for thread in job.threads}

    @property
    def by_name(self) -> Mapping[str, tuple[Job, ThreadEvidence]]:
        """The threads by identity, each with its job."""
        return self._by_name

    def shown(self, job: Job, names: tuple[str, ...]) -> bool:
        """Take the identities that QEMU shows of the job's CPU; return whether they are others than expected.

        What the guest said of the expected ones is forgotten: it was about another CPU.
        """
        if len(names) != len(job.threads) or names == tuple(thread.firmware_id for thread in job.threads):
            return False
        for thread in job.threads:
            known = self._by_name.get(thread.firmware_id)
            if known is not None and known[1] is thread:
                del self._by_name[thread.firmware_id]
        job.take_names(names)
        self._by_name.update((thread.firmware_id, (job, thread)) for thread in job.threads)
        return True
