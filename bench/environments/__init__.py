"""Where an engine runs: its interpreter, its packages, and how both are made and found again."""
