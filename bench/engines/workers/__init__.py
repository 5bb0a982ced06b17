"""Programs that run in an engine's interpreter: standard library and the engine's own packages only."""
