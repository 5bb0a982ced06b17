"""The twin of a forked or restored launch: its variant by exec, asked the oracle's question and never measured.

Such a launch counts only beside the answer of a start by exec. Where neither the plan nor an earlier run has one, the
launch sees to it itself, before anything of its own begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import plugins
from bench.engines.engine import Checkpoint, Engine, LaunchContext
from bench.engines.images import imaged
from bench.engines.server import free_port, start
from bench.errors import LaunchError
from bench.run import oracle
from bench.run.seen import Stand
from bench.scenario.variant import Variant, twin_of
from bench.warmup.step import HostState
from bench.warmup.strategies import build

FOLDER = "by-exec"
KIND = "no_reference"


def provide(stand: Stand, variant: Variant, checkpoint: Checkpoint, folder: Path) -> None:
    """See to it that a copied variant has a reference; LaunchError(no_reference) with the reason if it cannot.

    Nothing is done where the plan has the twin as a variant, an answer is kept, or the engine can be neither anyway.
    The twin's log stays in the launch's folder, and its compiled code in caches of its own.
    """
    if variant.start == "exec" or variant.slowdown is not None or twin_of(variant, stand.variants) is not None:
        return
    engine: Engine = plugins.load("engines", variant.engine.engine)()
    caches = stand.caches / f"{variant.id}-{FOLDER}"
    own = folder / FOLDER
    context = LaunchContext(free_port(), own, checkpoint, caches)
    copied = imaged(engine.command(variant, context), variant, checkpoint, own)
    possible = copied.parent is not None or copied.image is not None
    if not possible or oracle.kept(oracle.place(variant, copied, stand.machine, checkpoint)) is not None:
        return
    stand.progress.phase("starting by exec, for the first token to compare with")
    for wanted in (caches, own):
        wanted.mkdir(parents=True, exist_ok=True)
    by_exec = replace(variant, start="exec")
    try:
        prepared = build(variant.warmup).prepare(HostState(by_exec, checkpoint, caches, own))
        spec = engine.command(by_exec, replace(context, args=prepared.args, env=prepared.env))
        with start(spec, own) as server:
            server.wait_healthy()
            asked = oracle.consulted(server.origin, by_exec, spec, stand.machine, server, checkpoint)
    except LaunchError as error:
        raise LaunchError(KIND, f"{_words(variant)} does not start: {error.message}", tail=error.tail) from error
    if asked.oracle is None or asked.oracle.token is None:
        why = asked.oracle.reason if asked.oracle else "it was not asked"
        raise LaunchError(KIND, f"{_words(variant)} does not answer the oracle's question: {why}")


def needs_oracle(variants: Sequence[Variant]) -> bool:
    """Whether the launches of these variants are asked the question: those by exec are references then."""
    return any(one.start != "exec" for one in variants)


def _words(variant: Variant) -> str:
    return f"{variant.id} by exec, which it is checked against,"
