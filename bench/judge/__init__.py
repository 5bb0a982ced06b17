"""What a measurement means: comparable or not, changed or not, good enough or not."""
