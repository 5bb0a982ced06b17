"""How an engine gets ready before it is measured."""
