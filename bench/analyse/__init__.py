"""What the record means: pure functions over recorded tables."""
