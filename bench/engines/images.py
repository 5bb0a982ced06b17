"""Images of engines, kept in the cache: made when a launch first asks for one, remade where this machine is another.

One is known by what it runs: words, variables and weights. Its document says on what it was made: kernel, processor,
installation, CRIU. Where that differs the image is refused and another made. The document is written last, so that a
folder without one is no image, and is removed.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.engines import image
from bench.engines.engine import Checkpoint, ImageSpec, LaunchSpec
from bench.engines.image import DOCUMENT, DUMP, KEPT, SCRATCH, WORK, Image
from bench.engines.parent import CannotFork
from bench.engines.parents import Parents, installation
from bench.engines.server import Server, start
from bench.errors import BenchError, LaunchError
from bench.home import clear, home, locked, room
from bench.probes.snapshots import criu
from bench.programs.parent_process import DEVICES
from bench.record.documents import keep_document
from bench.scenario.variant import Variant

FOLDER = "images"
ASK_S = 600.0


def imaged(spec: LaunchSpec, variant: Variant, checkpoint: Checkpoint, folder: Path) -> LaunchSpec:
    """The launch with what its image needs, where the variant asks to be restored; `folder` is the launch's own."""
    if variant.start != "restored":
        return spec
    if variant.engine.image is not None or spec.attached:
        return replace(spec, not_forked="a container or a running server is no process of ours to write to disk")
    return replace(spec, image=ImageSpec(folder, checkpoint.path, checkpoint.digest))


class Origins(Parents):
    """Warm parents and images: what launches of a run come from."""

    def __init__(self) -> None:
        super().__init__()
        self._images: dict[str, Image] = {}
        self._failed: dict[str, CannotFork] = {}

    def warm(self, spec: LaunchSpec) -> Any:
        """A parent, or an image where the launch asks for one; CannotFork says why not."""
        if spec.image is None:
            return super().warm(spec)
        slot = key(spec)
        known = self._images.get(slot)
        if known is not None and known.alive:
            return known
        if slot in self._failed:
            raise self._failed[slot]
        try:
            self._images[slot] = found = provide(slot, spec)
        except CannotFork as fault:
            if fault.final:
                self._failed[slot] = fault
            raise
        return found

    def drop(self, parent: object) -> None:
        """End a parent, or remove an image; the next launch that needs it makes a new one."""
        if not isinstance(parent, Image):
            super().drop(parent)
            return
        self._images = {slot: one for slot, one in self._images.items() if one is not parent}
        parent.discard()


def key(spec: LaunchSpec) -> str:
    """What an image runs, whatever launch it is made for: words, variables and weights."""
    assert spec.image is not None
    port = re.compile(rf"(?<!\d){spec.endpoint.port}(?!\d)")

    def plain(text: object) -> str:
        return port.sub("{port}", str(text).replace(str(spec.image and spec.image.folder), "{folder}"))

    told = [
        [plain(word) for word in spec.argv],
        {name: plain(value) for name, value in spec.env.items()},
        [str(spec.image.weights), spec.image.digest],
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


def identity(spec: LaunchSpec, version: str | None) -> dict[str, str]:
    """What an image can only be restored on: the same kernel, processor, installation and CRIU."""
    system = os.uname()
    program = Path(spec.argv[0])
    with_flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    chosen = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", with_flags, re.MULTILINE)
    state = program.stat()
    return {
        "kernel": f"{system.release} {system.version} {system.machine}",
        "processor": hashlib.sha256("\n".join(sorted(set(chosen))).encode()).hexdigest()[:16],
        "installation": installation(program, spec.env.get("PYTHONPATH", "")),
        "program": f"{program.resolve()} {state.st_size} {state.st_mtime_ns}",
        "criu": str(version),
    }


def provide(slot: str, spec: LaunchSpec) -> Image:
    """The image of a launch, from the cache or made now; CannotFork says why there can be none."""
    able = criu()
    if not able.there:
        raise CannotFork(f"nothing can be restored here: {able.words}; {able.fix}", final=True)
    folder = home() / FOLDER / slot
    wanted = identity(spec, able.version)
    with locked(folder.with_suffix(".lock")):
        told, refused = image.read(folder), None
        if told is not None:
            other = [name for name, value in wanted.items() if told["identity"].get(name) != value]
            if not other:
                return Image(slot, folder, able, told)
            refused = f"an image of another {' and '.join(other)} was refused"
        clear(folder)
        made = Image(slot, folder, able, {}, refused)
        try:
            made.told = _make(made, spec, wanted)
        except BaseException as error:
            clear(folder)
            if isinstance(error, BenchError | OSError):
                raise CannotFork(f"the image could not be made: {error}") from error
            raise
    return made


def _make(made: Image, spec: LaunchSpec, wanted: dict[str, str]) -> dict[str, Any]:
    """Start the engine by exec, have it answer once, write it to disk; the document."""
    assert spec.image is not None
    begun = time.monotonic()
    folder, work = made.folder, made.folder / WORK
    work.mkdir(parents=True)
    with start(_moved(spec, work), folder / "made") as server:
        server.wait_healthy()
        _answered(server)
        assert server.pid is not None
        tree = server.tree()
        if devices := _devices(tree):
            raise CannotFork(f"devices in use: {', '.join(devices)}: criu alone cannot write them down", final=True)
        tasks = [int(name) for pid in tree for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
        pipes = [os.readlink(f"/proc/{server.pid}/fd/{stream}") for stream in (1, 2)]  # noqa: PTH115
        room(folder, sum(_resident(pid) for pid in tree), "the image")
        image.dump(made.able, server.pid, folder, spec.ready_timeout_s)
        # The engine has ended with these bytes in its files; the guardian clears what is temporary once it goes.
        for name, place in ((WORK, work), (SCRATCH, server.scratch)):
            shutil.copytree(place, folder / KEPT / name, symlinks=True)
        events = len(server.events())
        pid, mark, scratch = server.pid, server.mark, str(server.scratch)
    told = {
        "identity": wanted,
        "model": spec.endpoint.model if spec.image.weights else None,
        "mark": mark,
        "scratch": scratch,
        "port": spec.endpoint.port,
        "pid": pid,
        "tasks": sorted(tasks),
        "pipes": pipes,
        "events": events,
        "seconds": time.monotonic() - begun,
        "bytes": sum(file.stat().st_size for file in (folder / DUMP).iterdir()),
    }
    keep_document(folder / DOCUMENT, told)
    return told


def _moved(spec: LaunchSpec, work: Path) -> LaunchSpec:
    """The same launch with the image's folder in the place of its own."""
    assert spec.image is not None
    own = str(spec.image.folder)
    events = spec.events_file and work / spec.events_file.name
    return replace(
        spec,
        argv=tuple(str(word).replace(own, str(work)) for word in spec.argv),
        env={name: value.replace(own, str(work)) for name, value in spec.env.items()},
        cwd=work,
        events_file=events,
        image=None,
    )


def _answered(server: Server) -> None:
    """Have it make two tokens, so that what it does at its first request is in the image; LaunchError if not."""
    place = server.endpoint
    prompt: list[int] | str = list(range(3, 19)) if place.token_ids else "The capital of France is"
    body = {"model": place.model, "prompt": prompt, "max_tokens": 2, "temperature": 0.0, **place.body}
    connection = http.client.HTTPConnection(place.host, place.port, timeout=ASK_S)
    try:
        headers = {"Content-Type": "application/json", "Connection": "close", **place.headers}
        connection.request("POST", f"{place.prefix}/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise LaunchError("request_failed", f"it did not answer: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise LaunchError("request_failed", f"it answers {answer.status}")


def _devices(tree: list[int]) -> list[str]:
    """Devices that these processes have open or mapped."""
    found: set[str] = set()
    for pid in tree:
        try:
            opened = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH115, PTH208
            mapped = [line.split(maxsplit=5)[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
        except OSError:
            continue
        found |= {one for one in (*opened, *mapped) if one.startswith(DEVICES)}
    return sorted(found)


def _resident(pid: int) -> int:
    """A process's resident memory, bytes; nothing of one that has gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
