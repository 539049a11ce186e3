"""The former place of ``decomposition.scores``, for scripts that import gradients from it."""
