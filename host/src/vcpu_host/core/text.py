# SPDX-License-Identifier: Apache-2.0
"""Text that somebody else wrote: made fit for a terminal or a log (promise 6), or read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def printable(text: str, limit: int = 400) -> str:
    """Return ``text`` with everything that is not printable written as an escape, cut to ``limit`` characters.

    Terminal control sequences, line breaks, and characters that turn the writing direction are not printable
    (str.isprintable), so one line stays one line and says what it seems to say.
    """
    if len(text) <= limit and text.isprintable():
        return text
    # The first limit + 1 characters decide: an escape is never shorter than what it stands for.
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def no_name(text: str, errors: str = "surrogateescape") -> str:
    """Return why the kernel, or a library in C, takes the text for no path and no name; nothing if they take it.

    ``errors`` is as with str.encode: what is no UTF-8 in a path on the command line stands in it as Python has it (PEP
    383), and "strict" is for those that take no such thing.
    """
    if not text:
        return "is empty"
    if "\0" in text:
        return "has a NUL character"
    try:
        text.encode("utf-8", errors)
    except UnicodeEncodeError:
        return "has a character that cannot be written in UTF-8"
    return ""


def is_pattern(word: str) -> bool:
    """Return whether the word is a pattern that may fit several names of VMs: no name has one of these characters."""
    return any(character in word for character in "*?[")


#: How alike two words are of which one may be meant by the other (difflib): "pulg" and "plug" are 0.75, "force" and
#: "form" 0.67.
_NEAR = 0.7


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the word that a user may have meant by ``word``, or None if no word that is known is near to it."""
    import difflib  # late: only mistakes need it

    words = sorted(known)
    begin = [each for each in words if word.strip("-") and each.startswith(word)]
    # Dashes are common to all options, and make any two short ones look alike.
    bare = {each.lstrip("-"): each for each in reversed(words)}
    near = difflib.get_close_matches(word.lstrip("-"), bare, n=1, cutoff=_NEAR)
    return next(iter(begin or [bare[each] for each in near]), None)


def some_vcpus(count: int) -> str:
    """Return so many vCPUs, in words: "1 vCPU", "4 vCPUs"."""
    return f"{count} vCPU{'' if count == 1 else 's'}"


def more_vcpus(count: int) -> str:
    """Return so many more, in words: "no more vCPUs", "1 more vCPU", "4 more vCPUs"."""
    return f"{count or 'no'} more vCPU{'' if count == 1 else 's'}"


def cpu_count(cpulist: str) -> int:
    """Return how many CPUs a kernel list such as ``0-3,8`` names; 0 if it cannot be read."""
    total = 0
    for part in cpulist.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            return 0
        total += int(last) - int(first) + 1 if dash else 1
    return total


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as text, neighbours as a range: "1, 3-6"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)
