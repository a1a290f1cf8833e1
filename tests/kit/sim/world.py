# SPDX-License-Identifier: Apache-2.0
"""A whole VM in simulated time: QEMU, firmware, guest kernel and agent, with faults at every point, and no process.

It carries out the state machine's actions and tells it events, as the coordinator would. What it is made to do wrong
is data (:class:`Faults`) and a seed, so every run can be had again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vcpu_host.core.guest import CpuResult, CpuStatus, GuestCpu
from vcpu_host.core.operation import events as ev
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.run_states import is_over
from vcpu_host.core.view import VmView, join

from . import views
from .ground import Ask, Faults, Sim
from .hardware import Hardware


@dataclass
class World(Hardware):
    """The VM: ``do`` carries out what a machine asks for, and what comes of it is told to it in simulated time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._asks: dict[int, Ask] = {}
        self._agent_alive = self._booted = True
        self._sessions = 0
        self.unleash(self.faults)

    def unleash(self, faults: Faults) -> None:
        """These go wrong from now on."""
        self.faults = faults
        self.calmed = False
        for when, what, index in faults.happenings:
            self._at(when, partial(self.happen, what, index % self.total))
        if faults.onliner:
            self._at(faults.onliner * self.rng.random(), partial(self._onliner, faults.onliner))

    def view(self) -> VmView:
        """Both sides, as an operation begins: opens a session if the agent can be reached."""
        if self.reachable and self.session is None:
            self._open()
        self.shown = self.host()
        if self.session is None:
            return join(self.shown, None, agent_trouble=Reason("agent-absent", Origin.AGENT, "nobody"))
        return join(self.shown, self.guest(), agent=views.INFO)

    @property
    def reachable(self) -> bool:
        """Whether a session could be had now."""
        return self._agent_alive and self.running and not self.dead

    def _open(self) -> str:
        self._sessions += 1
        self.session = f"session-{self._sessions}"
        return self.session

    # --- actions of the machine ---------------------------------------------------------------------------------------

    def do(self, action: ev.Action) -> None:
        """What the coordinator would do about it. The answers are for this operation, and no later one."""
        op = self._op
        match action:
            case ev.DoPlug():
                self.sims[action.slot].commands += 1
                self._command(lambda: self._add(action, op))
            case ev.DoUnplug():
                self.sims[action.slot].commands += 1
                self._command(lambda: self._del(action, op))
            case ev.DoLookHost():
                asked = self.now
                self._at(self._moment(), lambda: self._show(asked, op))
            case ev.DoLookGuest():
                self._look(self.session)
            case ev.DoDial():
                self._at(self._moment(), lambda: self._dial(op))
            case ev.DoSetOnline():
                if self.session is not None:
                    self._ask(action, self.session)
            case ev.DoCancel():
                self._at(self._moment(), lambda: self._end(action.request, None))

    # --- the agent ----------------------------------------------------------------------------------------------------

    def _arrived(self, sim: Sim) -> None:
        if self._chance(self.faults.deaf):
            self._guest(partial(self._hears_again, sim), 1.0)
        else:
            self._hears(sim)

    def _hears_again(self, sim: Sim) -> None:
        """What was overheard is made good by a look at everything (vcpu_guest.cpus.writer, RESCAN)."""
        self._hears(sim)

    def _hears(self, sim: Sim) -> None:
        for ask in list(self._asks.values()):
            for name in ask.left:
                if self._names[name][0] is sim and ask.wait:
                    self._try(ask, name)

    def _dial(self, op: int) -> None:
        if self.dead or op != self._op:
            return
        if self.reachable:
            self._end_all("another session began")
            self._tell_in_order(ev.AgentUp(self._open(), views.INFO))
        else:
            self._tell_in_order(ev.AgentDown(Reason("agent-absent", Origin.AGENT, "nobody")))

    def _lose_session(self, why: str) -> None:
        self._end_all(why)
        if self.session is not None:
            self.session = None
            self._tell_in_order(ev.AgentDown(Reason("agent-lost", Origin.AGENT, why)))

    def _look(self, session: str | None) -> None:
        """The list of CPUs is not held up by a write that is under way; a paused guest answers when it goes on."""
        if session is None:
            return
        asked, op = self.now, self._op
        self._guest(lambda: self._listed(session, asked, op))

    def _listed(self, session: str, asked: float, op: int) -> None:
        if session != self.session:
            return
        if self._chance(self.faults.stream_breaks):
            slow = Reason("agent-slow", Origin.AGENT, "slow")
            self._tell(ev.GuestLookFailed(session, slow), op)
        else:
            self._tell(ev.GuestLooked(session, self.guest(), asked), op)

    def _end_all(self, why: str) -> None:
        for number in list(self._asks):
            self._end(number, Reason("agent-lost", Origin.AGENT, why))

    def _end(self, number: int, error: Reason | None) -> None:
        ask = self._asks.pop(number, None)
        if ask is not None:
            ask.over = True
            self._tell_of(ask, ev.RequestEnded(ask.session, number, error), last=True)

    def _ask(self, action: ev.DoSetOnline, session: str) -> None:
        ask = Ask(action.request, session, action.online, action.wait, action.brief, list(action.firmware_ids))
        self._asks[action.request] = ask
        delay = 0.0
        for name in action.firmware_ids:
            delay += self._moment()
            self._guest(partial(self._try, ask, name), delay)
        if self._chance(self.faults.stream_breaks):
            error = self.rng.choice((None, Reason("agent-slow", Origin.AGENT, "slow")))
            self._at(delay * self.rng.random(), lambda: self._end(action.request, error))

    def _tell_of(self, ask: Ask, event: ev.Event, *, last: bool = False) -> None:
        """One message of an answer: late ones are overtaken by others, but none by the end of the answer."""
        op = self._op
        when = self.now + self._delay(op)
        if last:
            when = max(when, ask.told_until)
        ask.told_until = max(ask.told_until, when)
        self._at(when - self.now, lambda: self._put(event, op))

    def _try(self, ask: Ask, name: str) -> None:
        """The agent comes to this CPU, or the CPU comes to it."""
        if ask.over or name not in ask.left:
            return
        sim, _ = self._names[name]
        if sim.present and sim.linked and not sim.misnamed:
            if ask.wait and not ask.brief:
                self._tell_of(ask, ev.CpuArrived(ask.session, self._cpu(name)))
            delay = self.rng.choice((5.0, 18.0)) if self._chance(self.faults.slow) else None
            self._guest(lambda: self._write(ask, name), delay)
        elif not ask.wait:
            self._settle(ask, CpuResult(name, CpuStatus.ABSENT, None, None, 0.0))

    def _write(self, ask: Ask, name: str) -> None:
        sim, thread = self._names[name]
        if ask.over or name not in ask.left:
            return
        if not (sim.present and sim.linked) or sim.misnamed:
            self._settle(ask, CpuResult(name, CpuStatus.ABSENT, None, None, 0.0))
            return
        refused = self.faults.online_refused if ask.online else self.faults.offline_refused
        status, reason = CpuStatus.DONE, None
        if sim.online[thread] is ask.online:
            status = CpuStatus.ALREADY
        elif (sim.index == 0 and not ask.online) or self._chance(refused):
            code = "hotplug-disabled" if self._chance(self.faults.passing) else "last-cpu"
            status, reason = CpuStatus.REFUSED, Reason(code, Origin.GUEST, "no", errno="EBUSY")
        else:
            self._switch(sim, thread, to=ask.online)
        self._settle(ask, CpuResult(name, status, reason, self._cpu(name), 0.01))

    def _settle(self, ask: Ask, result: CpuResult) -> None:
        ask.left.remove(result.firmware_id)
        ask.astray = ask.astray or result.status not in (CpuStatus.DONE, CpuStatus.ALREADY)
        told = self._lie(result) if self._chance(self.faults.lies) else result
        self._tell_of(ask, ev.CpuSettled(ask.session, ask.number, told))
        if not ask.left:
            if ask.astray or not ask.brief:
                self._tell_of(ask, ev.GuestLooked(ask.session, self.guest(), request=ask.number))
            self._end(ask.number, None)

    def _lie(self, result: CpuResult) -> CpuResult:
        sim, _ = self._names[result.firmware_id]
        sim.lied_about = True
        cpu = GuestCpu(1, result.firmware_id, self.rng.random() < 0.5)
        observed = self.rng.choice((cpu, None))
        return CpuResult(result.firmware_id, self.rng.choice(list(CpuStatus)), None, observed, 0.0)

    # --- what else may happen -----------------------------------------------------------------------------------------

    def happen(self, what: str, index: int) -> None:
        """One of :data:`HAPPENINGS`, to slot ``index`` if it is about one."""
        if not self.calmed:
            HAPPENINGS[what](self, self.sims[index])

    def _agent_dies(self, sim: Sim) -> None:
        del sim
        self._agent_alive = False
        self._lose_session("vcpud died")
        self._guest(self._agent_starts, self.rng.choice((0.05, 1.0, 10.0)))

    def _agent_starts(self) -> None:
        self._agent_alive = self._booted

    def _reset(self, sim: Sim) -> None:
        del sim
        self._epoch += 1
        self._frozen.clear()
        self._agent_alive = self._booted = False
        for each in self.sims:
            each.touched = True
            self._change(each, partial(self._dark, each))
            if each.ejecting and self.threads > 1:
                self._empty(each)
        self._hint(ev.VmReset())
        self._lose_session("reset")
        self._guest(self._boot, self.rng.choice((0.5, 3.0, 20.0)))

    def _dark(self, sim: Sim) -> None:
        sim.present, sim.online = False, [False] * self.threads

    def _boot(self) -> None:
        """The kernel brings up every CPU that its firmware shows."""
        for sim in self.sims:
            if sim.holder is not None:
                self._change(sim, partial(self._light, sim))
        self._booted = True
        self._guest(self._agent_starts, 0.5)

    def _light(self, sim: Sim) -> None:
        sim.present, sim.linked, sim.online = True, True, [True] * self.threads
        sim.misnamed = sim.untold = False
        sim.noticed_at = self.now

    def _pause(self, sim: Sim) -> None:
        del sim
        if self.running:
            self._halt(self.rng.choice(("paused", "paused", "suspended", "io-error", "watchdog")))
            self._at(self.rng.choice((0.1, 5.0, 25.0)), self._resume)

    def _panic(self, sim: Sim) -> None:
        """Somebody looks at it for a while, and then starts it anew."""
        del sim
        if self.running:
            self._halt("guest-panicked")
            self._at(25.0, self._resume)

    def _halt(self, status: str) -> None:
        self.running, self.halted = False, status
        self.was_halted.add(status)
        self._hint(ev.VmStatus("stopped"))

    def _resume(self) -> None:
        if self.running or self.dead:
            return
        if is_over(self.halted):
            self._reset(self.sims[0])
        self.running = True
        self._hint(ev.VmStatus("running"))
        frozen, self._frozen = self._frozen, []
        for due in frozen:
            self._at(self._moment(), due)

    def _theirs(self, sim: Sim) -> None:
        if sim.holder is None:
            sim.touched = True
            self._fill(sim, f"theirs-{sim.index}", ours=False)

    def _they_unplug(self, sim: Sim) -> None:
        if sim.holder is not None and sim.index:
            sim.touched = sim.foreign = True
            self._eject(sim)

    def _they_online(self, sim: Sim) -> None:
        sim.touched = True
        self._guest(lambda: self._switch(sim, 0, to=True))

    def _they_offline(self, sim: Sim) -> None:
        if sim.index:
            sim.touched = True
            self._guest(lambda: self._switch(sim, 0, to=False))

    def _onliner(self, interval: float) -> None:
        """Something in the guest that brings every CPU online which it finds offline, round after round."""
        if self.calmed or self.dead:
            return
        if self.running:
            for sim in self.sims:
                for thread in range(self.threads):
                    if sim.present and not sim.online[thread]:
                        sim.touched = True
                        self._switch(sim, thread, to=True)
        self._at(interval, partial(self._onliner, interval))

    def _misnamed(self, sim: Sim) -> None:
        """The guest's firmware has another name for the CPU than QEMU's present machines give."""
        if sim.holder is not None:
            sim.touched = sim.misnamed = True

    def _reverted(self, sim: Sim) -> None:
        """A snapshot is loaded that was made before this CPU, and those behind it, were plugged.

        QEMU keeps them, and nothing tells the guest of them any more (seen on 10.0: their "insert" flag is cleared).
        """
        if not self._booted:
            return  # it was made of a guest that ran
        self._epoch += 1
        self._frozen.clear()
        for each in self.sims:
            each.linked = True
        for each in self.sims[max(1, sim.index) :]:
            if each.holder is not None:
                self._change(each, partial(self._forget, each))
        self._lose_session("a snapshot was loaded")
        self._agent_alive = self._booted = True

    def _forget(self, sim: Sim) -> None:
        self._dark(sim)
        sim.touched = sim.untold = True
        sim.ejecting, sim.ost = False, None

    def _qemu_dies(self, sim: Sim) -> None:
        del sim
        self.dead = True
        self._put(ev.QemuGone(Reason("qemu-gone", Origin.QEMU, "connection lost")))

    def hang_up(self) -> None:
        """The operation is over: the coordinator drops its calls and listens to nothing more."""
        for ask in self._asks.values():
            ask.over = True
        self._asks.clear()
        self.inbox.clear()
        self._op += 1
        for sim in self.sims:
            sim.touched = sim.touched or sim.ejecting or sim.commands > 0

    def stop_faults(self) -> None:
        """Nothing more goes wrong; what is under way, or held up, goes on. There is an agent when this returns."""
        self.faults = Faults()
        self.calmed = True
        self.hang_up()
        self._resume()
        for sim in self.sims:
            sim.misnamed = False
        # QEMU's main loop carries out, or drops, what one monitor was told before it answers the next one.
        self.drain(lambda: self.reachable and not any(sim.commands for sim in self.sims))

    def calm(self) -> None:
        """The faults stop, and all that is under way, or was missed, comes to its end."""
        self.stop_faults()
        self.drain()
        for sim in self.sims:
            self._insert(sim)
        self.drain()
        self._agent_alive = True
        for sim in self.sims:
            sim.touched = sim.lied_about = False


HAPPENINGS: dict[str, Callable[[World, Sim], None]] = {
    "agent dies": World._agent_dies,
    "reset": World._reset,
    "pause": World._pause,
    "panic": World._panic,
    "they plug": World._theirs,
    "they unplug": World._they_unplug,
    "they online": World._they_online,
    "they offline": World._they_offline,
    "misnamed": World._misnamed,
    "reverted": World._reverted,
    "qemu dies": World._qemu_dies,
}
