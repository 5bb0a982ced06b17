"""Other tools' formats, one small file each, registered as `bench.formats`.

A format module has `export(run)`, which gives a document per file name, or `read(document)`, which gives a table of our
metrics, or both; `is_ours(document)` says whether a file looks like its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from bench import plugins
from bench.analyse.run import Run
from bench.errors import RecordError, UnknownName


@runtime_checkable
class Exporter(Protocol):
    """A format that can be written."""

    def export(self, run: Run) -> Mapping[str, Any]:
        """JSON documents by file name."""
        ...


@runtime_checkable
class Importer(Protocol):
    """A format that can be read."""

    def is_ours(self, document: Any) -> bool:
        """Whether the document looks like this format's."""
        ...

    def read(self, document: Any) -> list[dict[str, Any]]:
        """Rows of metric, unit and value, by our definitions and names."""
        ...


def directions(found: object) -> tuple[str, ...]:
    """What a format does: `reads`, `writes`, or both."""
    return tuple(word for word, kind in (("reads", Importer), ("writes", Exporter)) if isinstance(found, kind))


def exporter(name: str) -> Exporter:
    """A format by name; UnknownName says which can be written."""
    found = {known: plugins.load("formats", known) for known in plugins.names("formats")}
    writers = {known: one for known, one in found.items() if isinstance(one, Exporter)}
    if name not in writers:
        raise UnknownName("export format", name, writers)
    return writers[name]


def importer(document: Any, name: str | None = None) -> tuple[str, Importer]:
    """The format of a document, by name or by its looks; RecordError if none fits."""
    found = {known: plugins.load("formats", known) for known in plugins.names("formats")}
    readers = {known: one for known, one in found.items() if isinstance(one, Importer)}
    if name is not None:
        if name not in readers:
            raise UnknownName("import format", name, readers)
        return name, readers[name]
    for known, reader in readers.items():
        if reader.is_ours(document):
            return known, reader
    raise RecordError(f"no known tool wrote this file; there are {', '.join(readers)}", hint="name one with --format")
