"""From evidence to a running service: is it ready, how is it deployed, does it still keep what was measured."""
