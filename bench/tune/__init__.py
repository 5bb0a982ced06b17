"""Search engine flags for a faster first token: a race of candidates, then a confirmation on fresh launches."""
