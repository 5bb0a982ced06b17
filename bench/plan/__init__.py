"""In which order: which launches a run consists of."""
