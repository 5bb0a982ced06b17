"""Who asks: requests out, stamps in."""
