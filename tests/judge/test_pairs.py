from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bench.judge.pairs import variant_id


def test_a_level_is_compared_as_it_is_written_in_a_scenario() -> None:
    variants = [
        {"id": "enforce-eager", "factors": {"args.enforce_eager": "true"}},
        {"id": "no-enforce-eager", "factors": {"args.enforce_eager": "false"}},
    ]
    names = [variant["id"] for variant in variants]
    run: Any = SimpleNamespace(variants=names, manifest=SimpleNamespace(variants=variants))
    assert variant_id(run, {"args.enforce_eager": True}) == "enforce-eager"
    assert variant_id(run, "args.enforce_eager=false") == "no-enforce-eager"
