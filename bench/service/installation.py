"""An installed firsttoken as the program of a deployed folder, for variants that no single command line starts.

A forked engine has a parent, a restored one an image, a handed-over one another engine before it. `bench serve` makes
them again from the scenario's text, and the folder keeps `bench serve` as it would keep the engine itself.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import bench
from bench.errors import RecordError, UsageError
from bench.home import home
from bench.scenario.load import Scenario
from bench.scenario.names import FOUNDING
from bench.scenario.redaction import WITHHELD
from bench.scenario.variant import Variant
from bench.warmup.predecessor import predecessor

NAME = "firsttoken"
SCENARIO = "scenario.yaml"
INSTALL = "install the wheel into an environment of its own (`pip install firsttoken`, or `nox -s dist` in a checkout)"


def needed(variant: Variant) -> bool:
    """Whether it takes `bench serve` to start the variant as it was measured."""
    return variant.start != "exec" or predecessor(variant) is not None


def environment(found: metadata.Distribution | None = None) -> Path:
    """The virtual environment that this firsttoken is installed in; UsageError for a checkout, or outside of one.

    What is kept for months must hang on no source tree that somebody goes on working in. `found`: its metadata, this
    interpreter's own if left out.
    """
    try:
        found = found or metadata.distribution(NAME)
    except metadata.PackageNotFoundError:
        found = None
    package = Path(bench.__file__).parent.resolve()
    if found is None or not found.read_text("RECORD") or Path(str(found.locate_file("bench"))).resolve() != package:
        raise UsageError(
            f"this {NAME} runs from a source tree ({package}), and a service would change whenever that does",
            hint=f"{INSTALL}, and deploy with that one's `bench`",
        )
    # A virtual environment's interpreter is a link: what it leads to is not where its packages are.
    folder = Path(sys.executable).parent.parent
    if not (folder / "pyvenv.cfg").is_file():
        raise UsageError(f"this {NAME} is in no virtual environment whose packages could be checked", hint=INSTALL)
    return folder


def words(variant: Variant) -> tuple[list[str], dict[str, str]]:
    """The program that the folder keeps, and the variables that it is given."""
    argv = [sys.executable, "-P", "-m", "bench", "serve", f"{{service}}/{SCENARIO}"]
    return [*argv, "--variant", variant.id, "--port", "{port}"], {"FIRSTTOKEN_HOME": str(home())}


def check(scenario: Scenario, variant: Variant) -> None:
    """Refuse what the scenario's text does not say by itself when it is read in another folder."""
    ahead = predecessor(variant)
    if ahead is not None and ahead.model != variant.model:
        raise RecordError(
            f"{variant.id} is answered for by {ahead.model.source} at first, and the record has no digest of that: "
            "it could not be checked before a start",
            hint="`bench serve` swaps models; or deploy a hand-over between engines of one model",
        )
    kept_back = [name for name, value in variant.engine.env.items() if value == WITHHELD]
    if kept_back:
        raise UsageError(
            f"the scenario gave {', '.join(kept_back)} to {variant.id} itself, and no record holds its value",
            hint="leave it out of the scenario and give it to `bench run` as a variable, which engines inherit: "
            "the folder then takes it from secrets.env",
        )
    files = [scenario.model.model_dump().get(part) or {} for part in ("workload", "quality")]
    named = [(files[0].get("prompts") or {}).get("file"), files[1].get("corpus")]
    source = variant.model.source
    if source.startswith("path:"):
        named.append(source.removeprefix("path:"))
    for one in named:
        if one and not one.startswith(FOUNDING) and not Path(one).expanduser().is_absolute():
            raise UsageError(
                f"the scenario names {one} by a relative path, which would lead elsewhere from the folder",
                hint="write an absolute path into the scenario and run it once more",
            )
