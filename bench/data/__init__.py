"""Texts that are shipped: prompts of the founding cases, and the corpus that quality is measured with."""

from pathlib import Path

FOLDER = Path(__file__).parent
FOUNDING = FOLDER / "founding"
CALIBRATION = FOLDER / "corpus" / "calibration.jsonl"
EVALUATION = FOLDER / "corpus" / "evaluation.jsonl"
