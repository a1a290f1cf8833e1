# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache License 2.0, or GNU General Public License v3.0 or later, as you like.
"""What vcpuctl's JSON documents mean to Ansible: pure functions, which neither run nor read anything.

The documents are described in docs/json of vcpuctl. Nothing here reads words that are meant for people.
"""

import json
from typing import Any, Dict, Iterable, List, Mapping, Optional

Document = Dict[str, Any]

#: The version of the documents that is understood here.
SCHEMA_VERSION = 1
#: What each exit status says of one VM (vcpuctl(1), EXIT STATUS).
OUTCOMES = {
    0: "done",
    1: "failed",
    2: "usage",
    3: "refused",
    4: "unknown",
    5: "unreachable",
    6: "partial",
}
#: A VM that ends so is not as it was asked for.
SHORTFALLS = tuple(sorted(set(OUTCOMES.values()) - {"done"}))
#: Outcomes of a slot after which it is, or may be, another than before. What has failed was undone.
_TOUCHED = ("done", "partial", "unknown")
#: Phases that only a slot on its way down has, and steps of a plan that take one there.
_DOWN = frozenset({"offline", "device_del", "unplug"})


class DocumentError(Exception):
    """What vcpuctl wrote is not what its exit status and docs/json promise. Its text is for people."""


def parse(text: str, status: int) -> Document:
    """Return the document in ``text``, which a vcpuctl wrote that ended with ``status``. Raise DocumentError."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DocumentError("it wrote no JSON document ({0}), and ended with status {1}".format(error, status))
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        said = document.get("schema_version") if isinstance(document, dict) else None
        raise DocumentError(
            "its document has schema_version {0}, and this collection reads {1}".format(said, SCHEMA_VERSION)
        )
    told = document.get("exit_status", status)
    if told != status:
        raise DocumentError("its document says exit status {0}, and it ended with {1}".format(told, status))
    return document


def told(reason: Mapping[str, Any]) -> str:
    """Return a reason in one line: who said no, their words, and what to do."""
    who = "" if reason["who"] == "vcpuctl" else reason["who"] + ": "
    return who + "; ".join(part for part in (reason["text"], reason["hint"]) if part)


def members(document: Document, names: Optional[Iterable[str]]) -> Dict[str, Document]:
    """Return the parts of a document for several VMs by their names.

    Raise DocumentError if it is not about just ``names``, which may be None: whatever there is.
    """
    parts = document.get("vms")
    if not isinstance(parts, list):
        raise DocumentError("its document has no list of VMs")
    found = dict((part["vm"], part) for part in parts)
    if names is not None and set(found) != set(names):
        raise DocumentError("it was asked for {0}, and its document is about {1}".format(sorted(names), sorted(found)))
    return found


def outcome_of(status: int) -> str:
    """Return in a word how it ended for one VM. A status that nobody has described yet is a word of its own."""
    return OUTCOMES.get(status, "exit status {0}".format(status))


def scaled(member: Document) -> Document:
    """Return what became of one VM, of apply's part about it."""
    document = member["document"]
    result = {
        "vcpus": member["vcpus"],
        "exit_status": member["exit_status"],
        "outcome": outcome_of(member["exit_status"]),
        "reasons": reasons_of(member),
    }
    if document is None:
        # Without a document nothing was done, unless nobody knows.
        result["changed"] = result["outcome"] == "unknown"
        result["slots"] = []
        result["recovered"] = []
        return result
    result["slots"] = document["slots"]
    result["recovered"] = document["recovered"]
    result["elapsed"] = document["elapsed"]
    result["changed"] = any(slot["outcome"] in _TOUCHED for slot in document["slots"] + document["recovered"])
    return result


def planned(member: Document) -> Document:
    """Return what would become of one VM, of the part about it of apply's dry run."""
    document = member["document"]
    outcome = outcome_of(member["exit_status"])
    steps = [] if document is None else document["recover"] + document["steps"]
    return {
        "vcpus": member["vcpus"],
        "exit_status": member["exit_status"],
        "outcome": "planned" if outcome == "done" else outcome,
        "reasons": reasons_of(member),
        "steps": steps,
        "changed": bool(steps),
    }


def reasons_of(member: Document) -> List[Document]:
    """Return all reasons in the part about one VM, each with its slot, or with None if it is about the whole VM."""
    found: List[Document] = []

    def note(slot: Optional[int], reason: Optional[Document]) -> None:
        if reason is not None:
            found.append(dict(reason, slot=slot))

    note(None, member["error"])
    document = member["document"] or {}
    note(None, document.get("reason"))
    for slot in document.get("recovered", []) + document.get("slots", []):
        note(slot["slot"], slot["reason"])
    for refusal in document.get("refusals", []):
        note(refusal["slot"], refusal["reason"])
    return found


def by_outcome(results: Mapping[str, Document]) -> Dict[str, List[str]]:
    """Return the names of the VMs by their outcomes, in alphabetical order."""
    found = {}  # type: Dict[str, List[str]]
    for name in sorted(results):
        found.setdefault(results[name]["outcome"], []).append(name)
    return found


def failing(results: Mapping[str, Document], fail_on: Iterable[str]) -> List[str]:
    """Return the names of the VMs that make the task fail. An outcome that is not known here always does."""
    known = set(SHORTFALLS) | {"done", "planned"}
    return [
        name for name in sorted(results) if results[name]["outcome"] in fail_on or results[name]["outcome"] not in known
    ]


def complaint(results: Mapping[str, Document], names: List[str]) -> str:
    """Return in words why the VMs with these names make the task fail."""
    lines = []
    for name in names:
        line = "{0}: {1}".format(name, results[name]["outcome"])
        words: List[str] = []
        for reason in results[name]["reasons"]:
            slot = "" if reason["slot"] is None else "slot {0}: ".format(reason["slot"])
            if slot + told(reason) not in words:
                words.append(slot + told(reason))
        lines.append(": ".join([line] + ([" | ".join(words)] if words else [])))
    return "{0} of {1} VMs are not as wanted. {2}".format(len(names), len(results), " || ".join(lines))


def diff(results: Mapping[str, Document]) -> Dict[str, str]:
    """Return Ansible's diff of plans or of results: a line for each slot that goes or comes."""
    before: List[str] = []
    after: List[str] = []
    for name in sorted(results):
        result = results[name]
        if "steps" in result:
            changed = [(step, (step["step"],)) for step in result["steps"]]
        else:
            slots = result["recovered"] + result["slots"]
            changed = [(slot, slot["phases"]) for slot in slots if slot["outcome"] in _TOUCHED]
        for slot, how in sorted(changed, key=lambda pair: pair[0]["slot"]):
            called = " ({0})".format(slot["id"]) if slot["id"] else ""
            unknown = " unknown" if slot.get("outcome") == "unknown" else ""
            line = "{0}: slot {1}{2}{3}\n".format(name, slot["slot"], called, unknown)
            (before if _DOWN.intersection(how) else after).append(line)
    return {
        "before": "".join(before),
        "after": "".join(after),
        "before_header": "vCPUs that go",
        "after_header": "vCPUs that come",
    }


def looked(member: Document) -> Document:
    """Return what a look at one VM found, of the part about it."""
    return _seen(member["document"], member["exit_status"], member["error"])


def _seen(view: Optional[Document], status: int, error: Optional[Document]) -> Document:
    result: Document = {"exit_status": status, "outcome": outcome_of(status), "error": error}
    result["possible_vcpus"] = result["plugged_vcpus"] = result["online_vcpus"] = None
    result["agent"] = result["agent_trouble"] = result["machine"] = None
    result["slots"] = []
    if view is not None:
        for key in ("possible_vcpus", "plugged_vcpus", "online_vcpus"):
            result[key] = view["vm"][key]
        result["machine"] = view["vm"]
        for key in ("agent", "agent_trouble", "slots"):
            result[key] = view[key]
    return result


def added(document: Document, status: int) -> Document:
    """Return what became of one domain's channel, of the document of ``channel --apply``."""
    definitions = dict((key, document[key]) for key in ("running", "persistent"))
    return {
        "outcome": outcome_of(status),
        "exit_status": status,
        "reasons": [dict(each["reason"], slot=None) for each in definitions.values() if each and each["reason"]],
        "changed": any(each["added"] for each in definitions.values() if each),
        "running": definitions["running"],
        "persistent": definitions["persistent"],
        "channel_xml": document["channel_xml"],
    }


def to_be_added(document: Document, status: int) -> Document:
    """Return what ``channel --apply`` would do, of the document of ``channel``."""
    result = added(document, status)
    lacking = [key for key in ("running", "persistent") if document[key] and not document[key]["channel"]]
    result["changed"] = bool(lacking)
    result["outcome"] = "planned" if result["outcome"] == "done" else result["outcome"]
    return result


def lost(error: Document, status: int) -> Document:
    """Return what became of one domain whose command ended with an error's document."""
    outcome = outcome_of(status)
    return {
        "outcome": outcome,
        "exit_status": status,
        "reasons": [dict(error, slot=None)],
        "changed": outcome == "unknown",
        "running": None,
        "persistent": None,
        "channel_xml": None,
    }
