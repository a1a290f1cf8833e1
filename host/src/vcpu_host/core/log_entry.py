# SPDX-License-Identifier: Apache-2.0
"""What the system's journal says of an operation: its fields, made from the operation's document, and read back.

The two directions stand here together. Field names are an interface, as the fields of the documents are: they keep
their names and their meanings, and others may come. Every text in an entry is printable and bounded, because some of it
comes from guests (promise 6); so is every text that is read back, because any user may write to the journal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .operation.counts import Counts
from .planning.plan import Operation
from .reason import Origin, Outcome, Reason
from .text import printable, ranges

#: Of every entry of ours (sd_journal_print(3), "MESSAGE_ID").
MESSAGE_ID = "c9e5f3a36a5c40babdb9cb6dee3dd3cb"
IDENTIFIER = "vcpuctl"

#: Our fields and their meanings; man page and README list them. "No field" is how an unknown value is written.
FIELDS: Mapping[str, str] = {
    "VCPUCTL_OPERATION": "What was asked for: plug, unplug, scale, online or offline.",
    "VCPUCTL_REQUESTED": "How much, or which slots, with the options that were given.",
    "VCPUCTL_OUTCOME": "How it ended: done, partial, refused, failed or unknown.",
    "VCPUCTL_REASON_CODE": "The code of a reason (see REASONS); one field for each code.",
    "VCPUCTL_REASON": "A reason as a JSON object: code, who, text, hint, errno, slots; one field for each reason.",
    "VCPUCTL_SLOTS": "The slots that were to be changed, such as 1-3, 6.",
    "VCPUCTL_PHASES": "A JSON object: the seconds of each phase, those of the slot that took longest.",
    "VCPUCTL_ELAPSED": "Seconds from beginning to end.",
    "VCPUCTL_VM": "The VM's name: that of its file in vms.d, else that of QEMU's -name.",
    "VCPUCTL_SOCKET": "The monitor's socket by which the VM was reached; of a domain, libvirt's URI and its name.",
    "VCPUCTL_QEMU_PID": "QEMU's process id on this host, where it can be seen.",
    "VCPUCTL_PLUGGED_BEFORE": "How many vCPUs QEMU had before.",
    "VCPUCTL_PLUGGED_AFTER": "How many it had when the operation ended.",
    "VCPUCTL_ONLINE_BEFORE": "How many vCPUs were online in the guest before.",
    "VCPUCTL_ONLINE_AFTER": "How many were online when the operation ended.",
    "VCPUCTL_UID": "The user id that vcpuctl or its service ran under.",
    "VCPUCTL_USER": "That user's name.",
    "VCPUCTL_FOR_UID": "The user id of who had asked the service.",
    "VCPUCTL_COMMAND": "The command that did it: vcpuctl serve, where the service did it for somebody.",
}
#: What else is read: added by journald itself, which asks the kernel for it (systemd.journal-fields(7)).
TRUSTED = ("_UID", "_AUDIT_LOGINUID")

# syslog(3)'s levels.
_PRIORITY = {
    Outcome.DONE: 6,
    Outcome.REFUSED: 5,
    Outcome.PARTIAL: 4,
    Outcome.UNKNOWN: 4,
    Outcome.FAILED: 3,
}
#: A guest with thousands of CPUs may have a reason for each.
_REASONS = 16
_SHORT, _TEXT, _LONG = 100, 400, 1000  # characters
#: The login id of a process that nobody has logged in for (proc_pid_loginuid(5)).
_NO_LOGIN = 2**32 - 1


#: A count before and after; None is not known.
Change = tuple[int | None, int | None]


class Subject(NamedTuple):
    """The VM: its ``name`` (may be empty), its monitor's socket, and QEMU's process id where that is known."""

    name: str
    socket: str
    pid: int | None = None


class Caller(NamedTuple):
    """Who changes a VM: the user of this process, by which ``command``, and for whom a service does it."""

    uid: int
    user: str = ""
    command: str = ""
    for_uid: int | None = None


class LoggedReason(NamedTuple):
    """A reason with the slots that it is about, such as "1-3"; empty if it is about the whole."""

    reason: Reason
    slots: str = ""


class LogEntry(NamedTuple):
    """An entry as it was read. ``time`` is in seconds since 1970; counts are None where the entry has none.

    ``login_uid`` is the user that had logged in, as the kernel's audit has it; None where that is not known.
    """

    time: float
    subject: Subject
    caller: Caller
    operation: Operation
    requested: str
    outcome: Outcome
    reasons: tuple[LoggedReason, ...]
    slots: str
    phases: Mapping[str, float]
    elapsed: float
    plugged: Change
    online: Change
    login_uid: int | None = None


class BrokenEntryError(ValueError):
    """An entry has our MESSAGE_ID, and is not one that any vcpuctl has written."""


# --- writing ----------------------------------------------------------------------------------------------------------


def fields(
    subject: Subject, caller: Caller, document: Mapping[str, Any], before: Counts | None, after: Counts | None
) -> list[tuple[str, str]]:
    """Return the fields of the entry for an operation that ended as ``document`` (``documents.of_result``) says.

    A field that has no value is left out. Some come several times.
    """
    reasons = _reasons_of(document)
    plugged = (before.plugged if before else None, after.plugged if after else None)
    online = (before.online if before else None, after.online if after else None)
    texts = [
        ("MESSAGE", _message(subject, caller, document, plugged, online, reasons)),
        ("MESSAGE_ID", MESSAGE_ID),
        ("PRIORITY", str(_PRIORITY[Outcome(document["outcome"])])),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
        ("VCPUCTL_OPERATION", document["operation"]),
        ("VCPUCTL_REQUESTED", requested(document["requested"])),
        ("VCPUCTL_OUTCOME", document["outcome"]),
        *(("VCPUCTL_REASON_CODE", code) for code in dict.fromkeys(each.reason.code for each in reasons)),
        *(("VCPUCTL_REASON", _reason_text(each)) for each in reasons),
        ("VCPUCTL_SLOTS", printable(_slots_of(document), _TEXT)),
        ("VCPUCTL_PHASES", json.dumps(longest_phases(document))),
        ("VCPUCTL_ELAPSED", str(document["elapsed"])),
        ("VCPUCTL_VM", printable(subject.name, _SHORT)),
        ("VCPUCTL_SOCKET", printable(subject.socket, _TEXT)),
        ("VCPUCTL_QEMU_PID", _number(subject.pid)),
        ("VCPUCTL_PLUGGED_BEFORE", _number(plugged[0])),
        ("VCPUCTL_PLUGGED_AFTER", _number(plugged[1])),
        ("VCPUCTL_ONLINE_BEFORE", _number(online[0])),
        ("VCPUCTL_ONLINE_AFTER", _number(online[1])),
        ("VCPUCTL_UID", str(caller.uid)),
        ("VCPUCTL_USER", printable(caller.user, _SHORT)),
        ("VCPUCTL_FOR_UID", _number(caller.for_uid)),
        ("VCPUCTL_COMMAND", printable(caller.command, _LONG)),
    ]
    return [(name, value) for name, value in texts if value]


def requested(document: Mapping[str, Any]) -> str:
    """Return what was asked for (``documents.of_request``) in the words of the command line."""
    from .planning.plan import FLAGS

    words = [] if document["count"] is None else [str(document["count"])]
    if document["slots"]:
        words += ["--slot", *document["slots"]]
    words += [f"--{name} {document[name]}" for name in ("policy", "node", "workload") if name in document]
    words += [f"--{name.replace('_', '-')}" for name in FLAGS if name in document]
    return printable(" ".join(words), _TEXT)


def longest_phases(document: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of each phase, of the slot that took longest: slots go through them side by side."""
    longest: dict[str, float] = {}
    for slot in document["slots"]:
        for phase, seconds in slot["phases"].items():
            longest[phase] = max(seconds, longest.get(phase, 0.0))
    return longest


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _slots_of(document: Mapping[str, Any]) -> str:
    return ranges(sorted(slot["slot"] for slot in document["slots"]))


def _reasons_of(document: Mapping[str, Any]) -> list[LoggedReason]:
    """Return each reason once, that of the whole first, with the slots that it is about."""
    about: dict[Reason, list[int]] = {}
    if document["reason"] is not None:
        about[_reason(document["reason"])] = []
    for slot in (*document["slots"], *document["recovered"]):
        if slot["reason"] is not None:
            about.setdefault(_reason(slot["reason"]), []).append(slot["slot"])
    told = [LoggedReason(reason, printable(ranges(sorted(set(slots))), _TEXT)) for reason, slots in about.items()]
    return told[:_REASONS]


def _reason(document: Mapping[str, Any]) -> Reason:
    """Return a reason of a document, or of an entry, with printable and bounded texts. Raise for what is no reason."""
    code = printable(_text(document, "code"), _SHORT)
    texts = [printable(_text(document, name), _TEXT) for name in ("text", "hint", "errno")]
    return Reason(code, Origin(_text(document, "who")), *texts)


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _reason_text(told: LoggedReason) -> str:
    reason = told.reason
    parts = {"code": reason.code, "who": str(reason.who), "slots": told.slots, "text": reason.text}
    return json.dumps({**parts, "hint": reason.hint, "errno": reason.errno}, ensure_ascii=False)


def _message(
    subject: Subject,
    caller: Caller,
    document: Mapping[str, Any],
    plugged: Change,
    online: Change,
    reasons: Sequence[LoggedReason],
) -> str:
    head = told(
        subject.name or subject.socket,
        f"{document['operation']} {requested(document['requested'])}",
        caller,
        f"{document['outcome']} in {document['elapsed']:.3f} s",
        f"vCPUs plugged {change(plugged)}, online {change(online)}",
    )
    return printable("; ".join([head, *map(reason_line, reasons)]), _LONG)


def told(vm: str, asked: str, caller: Caller, ended: str, counted: str) -> str:
    """Return one line on an operation."""
    return f"{vm}: {asked} by {who(caller)}: {ended}; {counted}"


def who(caller: Caller, login_uid: int | None = None) -> str:
    """Return who it was, in words: the user, for whom, and who had logged in if that is somebody else."""
    words = caller.user or f"uid {caller.uid}"
    if caller.for_uid is not None and caller.for_uid != caller.uid:
        words += f" for uid {caller.for_uid}"
    if login_uid is not None and login_uid not in (caller.uid, caller.for_uid):
        words += f" (logged in: uid {login_uid})"
    return words


def change(counts: Change) -> str:
    """Return a count before and after, or once if it stayed: "1 to 4"."""
    first, last = ("?" if count is None else str(count) for count in counts)
    return first if first == last else f"{first} to {last}"


def reason_line(told: LoggedReason) -> str:
    """Return a reason in one line, with its slots."""
    if not told.slots:
        return str(told.reason)
    return f"slot{'s' * (not told.slots.isdecimal())} {told.slots}: {told.reason}"


# --- reading ----------------------------------------------------------------------------------------------------------


def read(raw: Mapping[str, Any]) -> LogEntry:
    """Return the entry that ``journalctl -o json`` shows as ``raw``. Raise BrokenEntryError if it is none of ours.

    Who wrote it is journald's word, and the name beside it counts only if the entry says the same user.
    """
    try:
        return _entry(raw)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BrokenEntryError(f"not an entry of vcpuctl: {error}") from error


def _entry(raw: Mapping[str, Any]) -> LogEntry:
    claimed, trusted = _count(raw, "VCPUCTL_UID"), _count(raw, "_UID")
    uid = claimed if trusted is None else trusted
    if uid is None:
        raise ValueError("nobody is named")
    login = _count(raw, "_AUDIT_LOGINUID")
    return LogEntry(
        time=int(_value(raw, "__REALTIME_TIMESTAMP")) / 1_000_000,
        subject=Subject(_value(raw, "VCPUCTL_VM"), _value(raw, "VCPUCTL_SOCKET"), _count(raw, "VCPUCTL_QEMU_PID")),
        caller=Caller(
            uid,
            _value(raw, "VCPUCTL_USER") if claimed == uid else "",
            _value(raw, "VCPUCTL_COMMAND", _LONG),
            _count(raw, "VCPUCTL_FOR_UID"),
        ),
        operation=Operation(_value(raw, "VCPUCTL_OPERATION")),
        requested=_value(raw, "VCPUCTL_REQUESTED"),
        outcome=Outcome(_value(raw, "VCPUCTL_OUTCOME")),
        reasons=tuple(_logged(text) for text in list(_values(raw, "VCPUCTL_REASON"))[:_REASONS]),
        slots=_value(raw, "VCPUCTL_SLOTS"),
        phases=_phases(next(_values(raw, "VCPUCTL_PHASES"), "{}")),
        elapsed=_seconds(float(_value(raw, "VCPUCTL_ELAPSED"))),
        plugged=(_count(raw, "VCPUCTL_PLUGGED_BEFORE"), _count(raw, "VCPUCTL_PLUGGED_AFTER")),
        online=(_count(raw, "VCPUCTL_ONLINE_BEFORE"), _count(raw, "VCPUCTL_ONLINE_AFTER")),
        login_uid=None if login == _NO_LOGIN else login,
    )


def _values(raw: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield a field's texts. One that is not UTF-8 comes as a list of bytes, several as a list of those."""
    value = raw.get(name)
    several = isinstance(value, list) and not all(isinstance(each, int) for each in value)
    for each in value if isinstance(value, list) and several else [value]:
        if isinstance(each, str):
            yield each
        elif isinstance(each, list):
            yield bytes(each).decode(errors="replace")
        elif each is not None:
            raise TypeError(f"{name} is no text")


def _value(raw: Mapping[str, Any], name: str, limit: int = _TEXT) -> str:
    return printable(next(_values(raw, name), ""), limit)


def _count(raw: Mapping[str, Any], name: str) -> int | None:
    text = _value(raw, name)
    if text and not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ValueError(f"{name} is no number")
    return int(text) if text else None


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError("not a time")
    return float(value)


def _phases(text: str) -> dict[str, float]:
    if len(text) > _LONG:
        raise ValueError("too many phases")
    return {printable(name, _SHORT): _seconds(seconds) for name, seconds in dict(json.loads(text)).items()}


def _logged(text: str) -> LoggedReason:
    document = json.loads(text)
    return LoggedReason(_reason(document), printable(_text(document, "slots"), _TEXT))
