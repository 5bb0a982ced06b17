"""What was seen, as it is kept on disk: the one thing that the hands and the head share."""
