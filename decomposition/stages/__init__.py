"""The stages of a run: each turns numbers of the core into one group of the result tree."""
