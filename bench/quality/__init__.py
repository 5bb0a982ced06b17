"""What quantization does to the answers."""
