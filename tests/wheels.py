"""Small wheels made on the spot, for what installs and fetches packages."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path


def build(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> Path:
    """A wheel of any Python with these files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        everything = {**files, **about}
        for path, contents in everything.items():
            archive.writestr(path, contents)
        record = "".join(f"{path},,\n" for path in (*everything, f"{info}/RECORD"))
        archive.writestr(f"{info}/RECORD", record)
    return wheel
