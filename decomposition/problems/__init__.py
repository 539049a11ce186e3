"""Built-in problems, data files, and problems from a user's own Python file, by name.

Known truths: ``linear_truth``, ``least_squares`` and ``leave_one_out`` belong to the problem
``linear_gaussian``, ``teacher_truth`` to ``teacher``.
"""

from decomposition.problems.bundled import digits
from decomposition.problems.known_truth import linear_truth, teacher_truth
from decomposition.problems.least_squares import least_squares, leave_one_out
from decomposition.problems.registry import BUILT_IN, load_problem, make_problem
from decomposition.problems.variant import Variant

__all__ = [
    "BUILT_IN",
    "Variant",
    "digits",
    "least_squares",
    "leave_one_out",
    "linear_truth",
    "load_problem",
    "make_problem",
    "teacher_truth",
]
