"""A server with a script: what it answers, and when, is known to the microsecond."""
