"""Decompose the error of curvature approximations into its steps."""
