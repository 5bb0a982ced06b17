"""Programs that run in other interpreters: an engine's, a quantizer's, jtop's. They know nothing of bench."""

from pathlib import Path

FOLDER = Path(__file__).parent
