"""The former place of ``decomposition.scores.gradients``, for scripts that import from it."""

from decomposition.scores.gradients import influence_scores, target_gradients

__all__ = ["influence_scores", "target_gradients"]
