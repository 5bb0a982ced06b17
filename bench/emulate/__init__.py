"""What imitates: an engine's server, a board, NVML, a proxy that slows. They know nothing of whom they fool."""

from pathlib import Path

FOLDER = Path(__file__).parent
