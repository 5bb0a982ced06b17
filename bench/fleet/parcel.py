"""A board's results as one file: packed there, and unpacked here as if the board meant harm.

The file is a tar of the plainest kind (ustar: folders and regular files). The reader takes header by header and knows
nothing else: no links, devices, sparse files or extensions, no path that leaves its folder, no file twice, and no more
bytes or files than allowed. Nothing of a parcel is seen in its place before all of it has been checked.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from bench.errors import RecordError

BLOCK = 512
PIECE = 1 << 20
DEPTH = 12
# What a name in a parcel may be made of; variants have `=` and `+` in theirs, and none begins with a dash.
_PART = re.compile(r"(?!\.\.?$)[A-Za-z0-9_.@][A-Za-z0-9_.@=,+~:%()\[\]-]{0,150}")
# Locks and drafts are of no use elsewhere.
_LEFT_OUT = re.compile(r"\.lock$|.*\.partial$")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a parcel may hold at most."""

    size_bytes: int
    files: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """A packed file: its sha256, its size and the number of files in it."""

    sha256: str
    size_bytes: int
    files: int


class ParcelError(RecordError):
    """A parcel that must not, or cannot, be unpacked; the message says which rule it breaks."""


def pack(folder: Path, file: Path) -> Parcel:
    """Pack a folder's regular files, sorted, into a file; written beside its name and renamed."""
    draft = file.with_name(f".{file.name}.partial")
    count = 0
    with tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in _content(folder):
            info = archive.gettarinfo(path, str(path.relative_to(folder)))
            # Whose files they were stays on the board.
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mode = 0o644
            with path.open("rb") as content:
                archive.addfile(info, content)
            count += 1
    digest, size = digested(draft)
    draft.rename(file)
    return Parcel(digest, size, count)


def digested(file: Path) -> tuple[str, int]:
    """sha256 and size of a file."""
    found, size = hashlib.sha256(), 0
    with file.open("rb") as content:
        while piece := content.read(PIECE):
            found.update(piece)
            size += len(piece)
    return found.hexdigest(), size


def unpack(file: Path, into: Path, allowed: Allowance) -> int:
    """Unpack into a folder that does not exist yet; the number of files. ParcelError leaves nothing behind."""
    if into.exists():
        raise ParcelError(f"{into} exists already")
    draft = into.with_name(f".{into.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        with file.open("rb") as content:
            count = _unpacked(content, draft, allowed)
        draft.rename(into)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return count


def _content(folder: Path) -> Iterable[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not path.is_symlink() and not any(_LEFT_OUT.fullmatch(part) for part in parts):
            yield path


def _unpacked(content: IO[bytes], into: Path, allowed: Allowance) -> int:
    seen: set[str] = set()
    left = allowed.size_bytes
    while (header := content.read(BLOCK)) and header.strip(b"\0"):
        info = _header(header)
        path = _path(info)
        if str(path) in seen:
            raise ParcelError(f"the parcel holds {_shown(info)} twice")
        seen.add(str(path))
        if len(seen) > allowed.files:
            raise ParcelError(f"the parcel holds more than {allowed.files} files", hint="`limits: {files: …}`")
        if info.type == tarfile.DIRTYPE:
            continue
        left -= info.size
        if info.size < 0 or left < 0:
            raise ParcelError(
                f"the parcel holds more than {allowed.size_bytes // 1_000_000} MB", hint="`limits: {megabytes: …}`"
            )
        _write(content, into, path, info.size)
    if not header:
        raise ParcelError("the parcel ends before its end: it was cut short")
    return len(seen)


def _header(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.TarError, UnicodeDecodeError) as error:
        raise ParcelError(f"the parcel is damaged: {error}") from error
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        kind = {tarfile.SYMTYPE: "a link", tarfile.LNKTYPE: "a hard link"}.get(info.type, "no regular file")
        raise ParcelError(f"{_shown(info)} in the parcel is {kind}: only folders and regular files may be sent")
    return info


def _path(info: tarfile.TarInfo) -> PurePosixPath:
    """Where it goes, relative to the folder; ParcelError if that is not below it."""
    parts = info.name.rstrip("/").split("/")
    if len(parts) > DEPTH or not all(_PART.fullmatch(part) for part in parts):
        raise ParcelError(f"{_shown(info)} in the parcel is no name that a run writes")
    return PurePosixPath(*parts)


def _write(content: IO[bytes], into: Path, path: PurePosixPath, size: int) -> None:
    place = into / path
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except (FileExistsError, NotADirectoryError) as error:
        raise ParcelError(f"{path} in the parcel is a file and a folder at once") from error
    with os.fdopen(handle, "wb") as file:
        left = size
        while left:
            piece = content.read(min(left, PIECE))
            if not piece:
                raise ParcelError("the parcel ends before its end: it was cut short")
            file.write(piece)
            left -= len(piece)
    content.read(-size % BLOCK)


def _shown(info: tarfile.TarInfo) -> str:
    return repr(info.name[:80])
