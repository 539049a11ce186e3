"""A study: a grid of independent tasks, computed once each, on one machine or a cluster."""
