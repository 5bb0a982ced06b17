"""Carrying out a run: plan → launches → record."""
