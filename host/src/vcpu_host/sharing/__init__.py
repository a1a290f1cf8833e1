# SPDX-License-Identifier: Apache-2.0
"""One VM, several programs: the monitor and the agent's port take one client each, and who has them serves others.

    calls      what can be asked of a VM, as a value that travels
    answers    how a coordinator answers: with documents
    wire       lines of JSON on a unix socket
    hub        the socket of the process that holds a VM
    remote     asking such a process
    hold       taking hold of a VM: who waits for whom, who gives way
    vm         a VM to ask, wherever it is held

Three kinds of programs hold a VM. One that *reads* gives way to every other kind at once, and asks the new holder from
then on. One that *writes* gives way to nobody until it is done, and answers readers meanwhile. One that *keeps* the VM
(``vcpuctl serve``) carries out what others want written, and gives way only to what it cannot carry out.
"""
