"""What ships as data: prompts of the founding cases, the corpus of quality, shapes of models with random weights."""

from pathlib import Path

FOLDER = Path(__file__).parent
SHAPES = FOLDER / "shapes"
FOUNDING = FOLDER / "founding"
CALIBRATION = FOLDER / "corpus" / "calibration.jsonl"
EVALUATION = FOLDER / "corpus" / "evaluation.jsonl"
