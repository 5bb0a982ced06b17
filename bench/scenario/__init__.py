"""What to measure: a declarative file, read strictly."""
