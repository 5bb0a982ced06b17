"""Programs built from a source distribution: a real one of a few lines, with the real pip, cmake, ninja, compiler."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from bench.environments.build import at_once, explain
from bench.environments.environment import environment, make
from bench.environments.recipe import Recipe, parse
from bench.errors import EnvironmentFault

# A build backend that needs nothing from a package index.
BACKEND = """
import os
def prepare_metadata_for_build_wheel(folder, config=None):
    name = "tiny_engine-1.0.dist-info"
    os.makedirs(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: tiny-engine\\nVersion: 1.0\\n")
    return name
def build_wheel(*_): raise NotImplementedError
def build_sdist(*_): raise NotImplementedError
"""
FILES = {
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    "backend.py": BACKEND,
    "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-engine\nVersion: 1.0\n",
    "vendor/engine/CMakeLists.txt": """cmake_minimum_required(VERSION 3.18)
project(engine CXX)
option(LOUD "say it loudly" OFF)
add_executable(tiny-server server.cpp)
if (LOUD)
    target_compile_definitions(tiny-server PRIVATE LOUD)
endif()
add_executable(not-wanted broken.cpp)
""",
    "vendor/engine/server.cpp": """#include <cstdio>
int main() {
#ifdef LOUD
    std::puts("HELLO");
#else
    std::puts("hello");
#endif
}
""",
    "vendor/engine/broken.cpp": "this is no C++\n",
    "vendor/engine/convert.py": "print('converted')\n",
}
RECIPE = """#: python >=3.11
#: disk 1
#: build tiny-engine==1.0#vendor/engine
#: target tiny-server
#: set LOUD=ON
#: keep convert.py
"""


def sdist(folder: Path, **changed: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "tiny_engine-1.0.tar.gz", "w:gz") as archive:
        for name, text in {**FILES, **changed}.items():
            data = text.encode()
            entry = tarfile.TarInfo(f"tiny_engine-1.0/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own, and a folder that is all that pip sees."""
    if not all(map(shutil.which, ("cmake", "ninja", "c++"))):
        pytest.skip("needs cmake, ninja and a C++ compiler")
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shop"))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return tmp_path / "shop"


def recipe(text: str = RECIPE) -> Recipe:
    return parse("tiny-engine", text)


def test_a_program_is_fetched_built_and_put_in_place(shop: Path) -> None:
    sdist(shop)
    told: list[str] = []
    place = make(recipe(), progress=told.append)
    assert place.ready
    assert place.program == place.folder / "bin" / "tiny-server"
    assert subprocess.run([place.program], capture_output=True, text=True).stdout == "HELLO\n"
    assert (place.folder / "share" / "convert.py").is_file()
    assert not place.folder.with_name(f"{place.folder.name}.build").exists(), "what is compiled is of no more use"
    assert any(line.startswith("tiny-engine: step 1 of 1: building tiny-server from tiny-engine==1.0") for line in told)
    assert "  2 of 2 compiled, about 0:00 left" in told
    lines: list[str] = []
    make(recipe(), progress=lines.append)
    assert lines == [], "it is there"


def test_a_source_that_does_not_compile_is_told_in_the_compilers_words_and_resumed(shop: Path, tmp_path: Path) -> None:
    sdist(shop, **{"vendor/engine/server.cpp": "int main() { return wrong; }\n"})
    with pytest.raises(EnvironmentFault, match=r"could not be built: .*wrong.* was not declared") as fault:
        make(recipe())
    assert "goes on where it stopped" in str(fault.value)
    (source,) = tmp_path.glob("home/engines/tiny-engine-*.build/source/vendor/engine/server.cpp")
    source.write_text(FILES["vendor/engine/server.cpp"])
    shutil.rmtree(shop)
    assert make(recipe()).ready, "what was fetched is not fetched again"


def test_a_wrong_checksum_is_refused_before_anything_is_built(shop: Path) -> None:
    sdist(shop)
    wrong = RECIPE.replace("tiny-engine==1.0#", f"tiny-engine==1.0 --hash=sha256:{'0' * 64}#")
    with pytest.raises(EnvironmentFault, match="checksum is wrong"):
        make(recipe(wrong))


def test_a_folder_without_a_project_is_named(shop: Path) -> None:
    sdist(shop)
    with pytest.raises(EnvironmentFault, match=r"tiny-engine==1\.0 has no cmake project in vendor/other"):
        make(recipe(RECIPE.replace("vendor/engine", "vendor/other")))


def test_a_package_that_is_not_there_is_told_as_pip_tells_it(shop: Path) -> None:
    shop.mkdir()
    with pytest.raises(EnvironmentFault, match=r"tiny-engine could not be fetched: there is no tiny-engine==1\.0"):
        make(recipe())


def test_a_machine_without_a_compiler_says_which_package_has_one(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sdist(shop)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cmake", "ninja", "nice"):
        (tools / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tools))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EnvironmentFault, match=r"there is no C\+\+ compiler here") as fault:
        make(recipe())
    assert "apt install g++" in str(fault.value)


def test_a_machine_without_cmake_says_so(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdist(shop)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match="there is no cmake"):
        make(recipe())


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("CMake Error: No CMAKE_CUDA_COMPILER could be found.", "there is no CUDA compiler (nvcc) here"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "memory ran out while compiling"),
        ("fatal error: error writing to /tmp/x.s: No space left on device", "the disk is full"),
        ("[3/9] x\nclip.cpp:5:1: error: expected ';'\nninja: build stopped", "clip.cpp:5:1: error: expected ';'"),
        ("", "cmake failed without a word"),
    ],
)
def test_what_compilers_say_is_put_into_words(said: str, meaning: str) -> None:
    assert explain(said)[0] == meaning


def test_files_are_compiled_at_once_as_cores_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    from types import SimpleNamespace

    import psutil

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    for available, expected in ((64e9, 6), (5e9, 3), (0.2e9, 1)):
        monkeypatch.setattr(
            psutil, "virtual_memory", lambda available=available: SimpleNamespace(available=int(available))
        )
        assert at_once() == expected


def test_the_shipped_builds_differ_in_what_they_are_for() -> None:
    cpu, cuda, jetson = (
        set(environment(name).recipe.steps[1].settings)  # type: ignore[union-attr]  # a Build
        for name in ("llama-cpp", "llama-cpp-cuda", "llama-cpp-jetson")
    )
    assert cuda - cpu == {"GGML_CUDA=ON", "CMAKE_CUDA_ARCHITECTURES=native"}
    assert jetson - cpu == {"GGML_CUDA=ON", "CMAKE_CUDA_ARCHITECTURES=87"}
    assert cpu <= cuda
    assert cpu <= jetson
