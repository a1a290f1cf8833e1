# SPDX-License-Identifier: Apache-2.0
"""``python3 again.py QMP SLOT ...``: plug and unplug each of these slots, one after the other, as a program that stays.

Runs where the packages are installed, with nothing else of the tests. One document is printed for each operation.
"""

from __future__ import annotations

import asyncio
import sys

from vcpu_host import Operation, Request, Target, documents, open_vm


async def main(qmp: str, slots: list[str]) -> None:
    async with open_vm(Target(qmp), holder="again.py") as vm:
        for slot in slots:
            for operation in (Operation.PLUG, Operation.UNPLUG):
                result = await vm.run(Request(operation, selectors=(slot,)))
                print(documents.text(documents.of_result(result)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
