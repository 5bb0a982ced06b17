"""Boards that are not at hand: folders of files with the names, formats and habits of the real ones.

Built from public facts (release notes, kernel drivers, recorded lines), read by the same code as hardware. What an
emulated board says about heat and power is a model's opinion: reports made on one are stamped EMULATED.
"""

from bench.emulate.board.catalogue import CATALOGUE, EmulatedBoard, find
from bench.emulate.board.files import build

__all__ = ["CATALOGUE", "EmulatedBoard", "build", "find"]
