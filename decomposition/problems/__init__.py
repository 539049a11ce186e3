"""Built-in problems, and loading one of your own from a Python file."""

from decomposition.problems.digits import digits
from decomposition.problems.registry import BUILT_IN, load_problem, make_problem
from decomposition.problems.variant import Variant

__all__ = ["BUILT_IN", "Variant", "digits", "load_problem", "make_problem"]
