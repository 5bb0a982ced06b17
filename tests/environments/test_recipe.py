from __future__ import annotations

import pytest

from bench.environments.recipe import Build, PipCall, names, parse, recipe
from bench.errors import InternalError, UnknownName

TEXT = """
#: about an engine
#: python >=3.10,<3.13
#: disk 1500
#: index SOME_INDEX
torch==2.13.0
# why the next step is a step of its own
#: step
engine==1.0
addition==2.0; python_version >= "3.11"
#: uninstall torchvision torchaudio
#: check import engine
"""


def test_a_file_becomes_steps_in_its_order() -> None:
    found = parse("x", TEXT)
    steps = [step for step in found.steps if isinstance(step, PipCall)]
    assert [step.requirements for step in steps] == [
        ("torch==2.13.0",),
        ("engine==1.0", 'addition==2.0; python_version >= "3.11"'),
        (),
    ]
    assert steps[2].uninstall == ("torchvision", "torchaudio")
    assert [step.index for step in steps] == ["SOME_INDEX", None, None]
    assert (found.about, found.disk, found.check) == ("an engine", 1_500_000_000, "import engine")


def test_the_digest_follows_what_pip_is_told_and_nothing_else() -> None:
    before = parse("x", TEXT).digest
    assert parse("x", TEXT.replace("about an engine", "about another")).digest == before
    assert parse("x", TEXT.replace("engine==1.0", "engine==1.1")).digest != before
    assert parse("x", TEXT.replace("torchvision ", "")).digest != before
    # As it always was: another one would have every user's environments made anew.
    assert parse("x", "a==1\n#: step\nb==2\n").digest == "964c627d6900"


BUILT = """
#: about an engine in C++
cmake==4.1.2
#: step
#: build engine==1.0 --hash=sha256:12ab#vendor/engine
#: target engine-server engine-tool
#: set CUDA=OFF
# Why it is off.
#: set TESTS=OFF PAGE=OFF
#: keep convert.py
#: check import sys
"""


def test_a_program_built_from_source_is_a_step() -> None:
    found = parse("x", BUILT)
    assert found.steps[1] == Build(
        requirement="engine==1.0 --hash=sha256:12ab",
        folder="vendor/engine",
        targets=("engine-server", "engine-tool"),
        settings=("CUDA=OFF", "TESTS=OFF", "PAGE=OFF"),
        keep=("convert.py",),
    )
    assert found.program == "engine-server"
    assert parse("x", TEXT).program == "python"


def test_another_setting_is_another_environment() -> None:
    before = parse("x", BUILT).digest
    assert parse("x", BUILT.replace("PAGE=OFF", "PAGE=ON")).digest != before
    assert parse("x", BUILT.replace("Why it is off", "Because")).digest == before


def test_a_setting_belongs_to_a_build() -> None:
    with pytest.raises(InternalError, match="no directive is called 'set'"):
        parse("x", "engine==1.0\n#: set CUDA=OFF")


def test_the_range_of_interpreters_is_kept() -> None:
    found = parse("x", TEXT)
    assert [found.fits((3, minor)) for minor in (9, 10, 12, 13)] == [False, True, True, False]
    assert parse("x", "").fits((3, 4))


def test_a_directive_that_does_not_exist_is_a_mistake_of_ours() -> None:
    with pytest.raises(InternalError, match="no directive is called 'pyhton'"):
        parse("x", "#: pyhton >=3.10")


def test_an_unknown_environment_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"did you mean transformers\?"):
        recipe("transformer")


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_pins_its_packages(name: str) -> None:
    found = recipe(name)
    assert found.about
    assert found.python
    assert found.check
    assert found.disk > 100_000_000
    requirements = [
        line for step in found.steps for line in ((step.requirement,) if isinstance(step, Build) else step.requirements)
    ]
    assert requirements
    assert all("==" in line for line in requirements)
    assert not any("://" in line for line in requirements), "an index is the user's to name"
