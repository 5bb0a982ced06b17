from __future__ import annotations

from pathlib import Path

import pytest

from bench.engines.engine import Checkpoint
from bench.errors import ModelError
from bench.models.checkpoints import resolve
from bench.models.dummy import SHAPES
from bench.models.reference import ALIASES, parse
from bench.scenario import sources
from bench.scenario.model import Model


def test_the_names_are_those_that_lead_somewhere() -> None:
    assert set(sources.ALIASES) == set(ALIASES)
    assert set(sources.DUMMIES) == set(SHAPES)


@pytest.mark.parametrize(
    "source",
    [
        *("hf:a/b", "hf:a/b@main", "hf:a/b@v1#x.gguf", "path:/a/b", "path:x.gguf", "pypi:a==1#b", "pypi:a==1.0+x#b/c"),
        *("default", "smollm2-135m", "dummy:tiny-llama", "dummy:ernie-4.5-0.3b"),
        *("", "hf:", "hf:a", "hf:a/b/c", "pypi:a#b", "pypi:a==1", "dummy:huge", "dummy:", "path:", "ftp:x", "a/b", "x"),
    ],
)
def test_what_is_refused_here_is_what_would_be_refused_later(source: str) -> None:
    try:
        parse(source)
    except ModelError:
        assert sources.mistake(source)
    else:
        assert sources.mistake(source) is None


def test_a_server_s_own_model_needs_nothing_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path))
    found = resolve(Model(source=sources.REMOTE), "bf16", offline=True)
    assert found == Checkpoint(None, sources.REMOTE, None, "bf16", "remote")
    assert found.tokenizer is None
