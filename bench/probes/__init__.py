"""What the machine does meanwhile."""
