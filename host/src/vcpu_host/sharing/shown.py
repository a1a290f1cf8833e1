# SPDX-License-Identifier: Apache-2.0
"""Documents that many are shown: made once, put into bytes once, and held once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .. import documents
from ..documents import Document

if TYPE_CHECKING:
    from ..core.view import VmView

T = TypeVar("T")


class Shown(dict[str, Any]):
    """A document that nobody changes any more, with what was made of it to send it."""

    __slots__ = ("_made",)

    def __init__(self, document: Document) -> None:
        super().__init__(document)
        self._made: dict[object, Any] = {}

    def once(self, make: Callable[[Document], T]) -> T:
        """Return what ``make`` makes of it, which is called the first time only."""
        if make not in self._made:
            self._made[make] = make(self)
        made: T = self._made[make]
        return made


def once(document: Document, make: Callable[[Document], T]) -> T:
    """Return what ``make`` makes of a document; of one that is shown to many, what it has made before."""
    return document.once(make) if isinstance(document, Shown) else make(document)


class Views:
    """The newest view of one VM as a document: all that see the same one have the same object."""

    def __init__(self) -> None:
        self._view: VmView | None = None
        self._document: Shown | None = None

    def of(self, view: VmView) -> Shown:
        """Return the view as a document, which is made of each view once."""
        if self._document is None or view is not self._view:
            self.shown(documents.of_view(view))
            self._view = view
        return self._document or Shown({})

    def shown(self, document: Document) -> Shown:
        """Return the document; or the one that was shown last, if it says the same."""
        last = self._document
        if last is not None and (document is last or document == last):
            return last
        if last is not None and document.get("slots") == last.get("slots"):
            document = {**document, "slots": last["slots"]}  # so that who compares the two sees that at once
        self._document = document if isinstance(document, Shown) else Shown(document)
        return self._document
