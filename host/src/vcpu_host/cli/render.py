# SPDX-License-Identifier: Apache-2.0
"""Writes documents to stdout. ``documents`` makes them, and what people read is in ``tables``."""

from __future__ import annotations

from vcpu_host import documents


def emit_json(document: documents.Document) -> None:
    """Write one JSON document to stdout, and nothing else."""
    print(documents.text(document), flush=True)  # noqa: T201 - stdout is the product
