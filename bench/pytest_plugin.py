"""Scenarios as pytest items; imported by every pytest run, so nothing heavy at the top."""
