# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl`` beside ``virsh setvcpus``, on one domain of one libvirt, in turn: ``build/peers.json``.

Both do the same as somebody would type it, and are watched by the same eyes: the guest's console, the lab's own monitor
of QEMU, and libvirt's record. virsh needs two commands, for the machine (``--live``) and for the guest (``--guest``, by
QEMU's guest agent). Each is repeated until it succeeds, and both until all three sides agree.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from kit.bench import peers_report, report
from kit.bench.real import ROOT, Say
from kit.e2e import domains
from kit.e2e.machine import SPEC, VCPUCTL
from kit.lab import Cache
from kit.lab.report import commit
from kit.lab.report import replace as replace_file
from kit.lab.virt import client, guests
from kit.lab.virt.domain import Domain
from kit.lab.virt.libvirt_host import LibvirtHost

OUTPUT, DOCUMENT = ROOT / "build" / "peers.json", ROOT / "build" / "peers.md"
LEAST_ROUNDS = 9
_SUITE = "sid"
#: Every plug uses up one of the 64 for good (TCG), and so many rounds fit into that.
_IN_A_LIFE = 3
_GA = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
_DOMAIN = replace(domains.SPEC, guest="debian12-ga-amd64", max_vcpus=64, topology=(2, 1, 16, 2), devices=(_GA,))
_COUNTS = (1, 8)
#: Seconds for one command, and for an operation.
_COMMAND, _GOAL = 120.0, 300.0

Done = subprocess.CompletedProcess[str]
Run = Callable[[Sequence[str]], Done]
#: What plugs a number of vCPUs and unplugs them again: gives each operation, its seconds and what was said.
Cycle = Callable[[int], Iterator[tuple[str, float, "list[Said]"]]]


class NotDoneError(Exception):
    """What is to be measured did not come to its end."""


@dataclass(frozen=True)
class Said:
    """What a command claimed, after how long (seconds since its operation's first one began), and what was true then.

    ``sides`` are the vCPUs by slot: online in the guest, plugged in QEMU, enabled in libvirt's record.
    """

    words: str
    status: int
    stderr: str
    after: float
    sides: Mapping[str, Sequence[int]]


@dataclass
class Samples:
    """Seconds by operation ("plug_1", ...) and by who did it; and, by the same, what was said in one that is shown."""

    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    shown: dict[str, dict[str, list[Said]]] = field(default_factory=dict)
    #: Seconds of a command that does next to nothing, by program.
    least: dict[str, list[float]] = field(default_factory=dict)
    #: What did not succeed, in words: its round counts no more, and the domain is restored.
    not_done: list[str] = field(default_factory=list)
    rounds: int = 0

    def add(self, who: str, cycle: Cycle, count: int) -> None:
        """Run one cycle and put in what it took."""
        for operation, seconds, _ in cycle(count):
            self.seconds.setdefault(operation, {}).setdefault(who, []).append(seconds)

    def take(self, one: Samples, least: Mapping[str, float]) -> None:
        """Put in a whole round: no side has more of them than another."""
        for operation, each in one.seconds.items():
            for who, values in each.items():
                self.seconds.setdefault(operation, {}).setdefault(who, []).extend(values)
        for who, seconds in least.items():
            self.least.setdefault(who, []).append(seconds)
        self.rounds += 1

    def show(self, who: str, cycle: Cycle, count: int) -> None:
        """Run one cycle and put in what was said."""
        for operation, _, said in cycle(count):
            self.shown.setdefault(operation, {})[who] = said


class Pair:
    """A domain and the two programs. Each cycle begins and ends as the domain was restored: with one vCPU.

    With ``looks`` the sides are looked at after each command, which gives a guest time: what is so done is not timed.
    """

    def __init__(self, domain: Domain, module: Mapping[str, str], *, looks: bool = False) -> None:
        self._domain, self._module, self._looks = domain, module, looks

    def virsh(self, count: int) -> Iterator[tuple[str, float, list[Said]]]:
        """See ``Cycle``."""
        words = ("setvcpus", self._domain.name)
        up, down = str(1 + count), "1"
        yield f"plug_{count}", *self._plugged(count, [(*words, up, "--live"), (*words, up, "--guest")], self._virsh)
        # the guest has to release them first
        yield f"unplug_{count}", *self._gone([(*words, down, "--guest"), (*words, down, "--live")], self._virsh)

    def ours(self, uri: str, count: int) -> Iterator[tuple[str, float, list[Said]]]:
        """See ``Cycle``. Raise NotDoneError where vcpuctl does not succeed."""

        def run(words: Sequence[str]) -> Done:
            done = self._vcpuctl(uri, words)
            if done.returncode != 0:  # said once more it would be about others
                raise NotDoneError(f"{words}: {done.stdout}{done.stderr}")
            return done

        yield f"plug_{count}", *self._plugged(count, [("plug", "-n", str(count))], run)
        yield f"unplug_{count}", *self._gone([("unplug", "-n", str(count))], run)

    def least(self) -> dict[str, float]:
        """Seconds of a command that does next to nothing."""
        found = {}
        for who, run, words in (
            ("virsh", self._virsh, ("domid", self._domain.name)),
            ("ours", partial(self._vcpuctl, self._domain.host.uri), ("--version",)),
        ):
            began = time.monotonic()
            run(words)
            found[who] = time.monotonic() - began
        return found

    def _virsh(self, words: Sequence[str]) -> Done:
        return self._domain.host.virsh(*words, timeout=_COMMAND)

    def _vcpuctl(self, uri: str, words: Sequence[str]) -> Done:
        argv = [str(VCPUCTL), "--connect", uri, "--domain", self._domain.name, *words]
        environment = {**os.environ, **self._module}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=_COMMAND, check=False)

    def _plugged(self, count: int, commands: Sequence[Sequence[str]], run: Run) -> tuple[float, list[Said]]:
        """Seconds until the guest's kernel has started the last CPU."""
        began = time.monotonic()
        said = self._until(began, list(range(1 + count)), commands, run)
        started = [when for when, line in self._domain.kernel_log if when >= began and "Booting Node" in line]
        if len(started) != count:
            raise NotDoneError(f"{len(started)} of {count} CPUs were started: {said}")
        return max(started) - began, said

    def _gone(self, commands: Sequence[Sequence[str]], run: Run) -> tuple[float, list[Said]]:
        """Seconds until the end of the command after which the CPUs are gone on all sides."""
        said = self._until(time.monotonic(), [0], commands, run)
        return said[-1].after, said

    def _until(self, began: float, goal: list[int], commands: Sequence[Sequence[str]], run: Run) -> list[Said]:
        """Repeat each command until it succeeds, and all of them until the three sides agree on the goal."""
        said: list[Said] = []
        while time.monotonic() - began < _GOAL:
            for words in commands:
                succeeded = False
                while not succeeded and time.monotonic() - began < _GOAL:
                    done = run(words)
                    after, succeeded = time.monotonic() - began, done.returncode == 0
                    sides = self._sides() if self._looks else {}
                    said.append(Said(" ".join(words), done.returncode, done.stderr.strip(), after, sides))
            if all(side == goal for side in self._sides().values()):
                return said
        raise NotDoneError(f"not within {_GOAL:.0f} s: {said[-3:]}")

    def _sides(self) -> dict[str, list[int]]:
        return domains.DomainMachine(self._domain, self._module).sides()


def measure(rounds: int, say: Say) -> Iterator[tuple[Samples, dict[str, str]]]:
    """Yield the samples so far, again and again until there are so many rounds, and the versions that they are of."""
    samples, versions = Samples(), dict[str, str]()
    with ExitStack() as stack:
        cache = Cache()
        module = stack.enter_context(client.find(cache, say))
        host = stack.enter_context(LibvirtHost(_SUITE, cache=cache, progress=say))
        state, image = stack.enter_context(guests.ready(cache, _SUITE, _DOMAIN, SPEC.debs, progress=say))
        with _ending(guests.restore(host, _DOMAIN, state, image)) as domain:
            versions |= _versions(domain)
            _shown(domain, module, samples)
        say("shown: what each command said, and what was true then")
        while samples.rounds < rounds and len(samples.not_done) < rounds:
            with _ending(guests.restore(host, _DOMAIN, state, image)) as domain:
                try:
                    _life(domain, module, samples, min(_IN_A_LIFE, rounds - samples.rounds))
                except NotDoneError as error:
                    samples.not_done.append(str(error))
                    say(f"not done: {error}")
            say(f"peers: {samples.rounds} of {rounds} rounds")
            if samples.rounds:
                yield samples, versions


@contextmanager
def _ending(domain: Domain) -> Iterator[Domain]:
    """End the domain with the block."""
    try:
        yield domain
    finally:
        domain.end()


def _shown(domain: Domain, module: Mapping[str, str], samples: Samples) -> None:
    pair = Pair(domain, module, looks=True)
    for count in _COUNTS:
        samples.show("virsh", pair.virsh, count)
        samples.show("ours", partial(pair.ours, domain.host.uri), count)


def _life(domain: Domain, module: Mapping[str, str], samples: Samples, rounds: int) -> None:
    """Some rounds, after a cycle of each that does not count; who begins changes from round to round."""
    pair = Pair(domain, module)
    local: Cycle = partial(pair.ours, domain.host.uri)
    ssh: Cycle = partial(pair.ours, domain.host.ssh_uri)
    for unmeasured in (pair.virsh, local, ssh):
        list(unmeasured(1))
    for _ in range(rounds):
        found = Samples()
        for count in _COUNTS:
            turns: list[tuple[str, Cycle]] = [("virsh", pair.virsh), ("ours", local)]
            if count == 1:
                turns.append(("ssh", ssh))
            for who, cycle in turns if samples.rounds % 2 else reversed(turns):
                found.add(who, cycle, count)
        samples.take(found, pair.least())


def _versions(domain: Domain) -> dict[str, str]:
    qemu = domain.qmp.execute("query-version")["qemu"]
    return {
        "libvirt": domain.host.ask("--version").strip(),
        "qemu": f"{qemu['major']}.{qemu['minor']}.{qemu['micro']}",
        "accel": "tcg",
        "kernel": domain.shell("uname -r").strip(),
        "guest_agent": domain.shell("dpkg-query -W -f '${Version}' qemu-guest-agent").strip(),
        "commit": commit(ROOT),
    }


def write(rounds: int, say: Say) -> dict[str, object]:
    """Measure, and write both reports, anew after each life of the domain. Return the one for machines.

    Raise NotDoneError if nothing could be measured.
    """
    found: dict[str, object] = {}
    for samples, versions in measure(rounds, say):
        found = {"versions": versions, **peers_report.figures(samples)}
        report.write(OUTPUT, found)
        replace_file(DOCUMENT, peers_report.page(found, samples))
    if not found:
        raise NotDoneError("no round came to its end")
    return found
