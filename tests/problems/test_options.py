"""Options in a problem's name: known ones are applied, unknown ones are answered with a list."""

from __future__ import annotations

import pytest

from decomposition import Recipe
from decomposition.errors import ProblemError
from decomposition.problems import Variant, load_problem, make_problem


def test_options_change_network_data_and_recipe_of_a_built_in_problem() -> None:
    problem = load_problem(
        "wine?hidden=4-3&activation=relu&examples=90&label_noise=0.1&epochs=7&lr=0.2&optimizer=adam"
        "&drop_last=true"
    )
    same = make_problem("wine", variant=Variant((4, 3), "relu", 90, 0.1))
    assert (problem.train[0] == same.train[0]).all()
    assert (problem.train[1] == same.train[1]).all()
    assert repr(problem.model) == repr(same.model)
    recipe = problem.recipe
    assert (recipe.epochs, recipe.lr, recipe.optimizer) == (7, 0.2, "adam")
    assert recipe.drop_last
    assert recipe.batch_size == same.recipe.batch_size


def test_hidden_none_is_a_linear_model() -> None:
    assert len(load_problem("wine?hidden=none").blocks) == 1


def test_arguments_go_before_options() -> None:
    recipe = Recipe(epochs=3)
    problem = make_problem("wine?hidden=4&epochs=9&examples=50", 0, recipe, Variant(hidden=(5,)))
    assert problem.recipe == recipe
    assert problem.blocks[0].d_out == 5
    assert problem.num_examples == 50


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wine?width=3", "unknown option 'width' in 'wine.width=3'; wine takes\n  hidden "),
        ("wine?target=3", "unknown option 'target'"),
        ("wine?hidden", "write options as option=value, got 'hidden'"),
        ("wine?", "write options as option=value, got ''"),
        ("wine?epochs=2&epochs=3", "option epochs is given twice"),
        ("wine?hidden=4,3", "hidden of wine must be widths such as 64-32, or none, got '4,3'"),
        ("wine?hidden=", "must be widths such as 64-32"),
        ("wine?hidden=0", "hidden must be a whole number >= 1, got 0"),
        ("wine?activation=swish", "activation must be one of tanh"),
        ("wine?examples=many", "examples of wine must be a whole number >= 2, got 'many'"),
        ("wine?epochs=1.5", "epochs of wine must be a whole number >= 0, got '1.5'"),
        ("wine?lr=fast", "lr of wine must be a number, got 'fast'"),
        ("wine?drop_last=yes", "drop_last of wine must be one of true, false, got 'yes'"),
        ("wine?lr=-1", "Recipe.lr must lie in"),
        ("wine?hidden=1000000000", r"wine: a network .* 17,000,000,003 parameters, .* free: ask"),
        ("wine?hidden=2147483647-2147483647", "wine: a network of this size has 1,152,921,504,606"),
        ("wine?hidden=99999999999", r"hidden must be a whole number below 2\^31, got 99999999999"),
        (f"wine?hidden={'9' * 5000}", r"hidden of wine must be widths such .* got '9+\.\.\.9+'"),
        (f"wine?epochs={'9' * 5000}", "epochs of wine must be a whole number >= 0"),
        ("digits_cnn?hidden=1000000000", "digits_cnn: a network of this size has 170,000,000,010"),
        ("digits_resnet?hidden=1000000000", "digits_resnet: a network of this size has 1,152,"),
        ("digits_resnet?blocks=1000000000", "digits_resnet: blocks must be 1 to 1,000, got 1,000"),
        ("chars?hidden=1000000000", "chars: a network of this size has 16,000,000,090,000,000,028"),
        ("chars?blocks=1000000000", "chars: blocks must be 1 to 1,000, got 1,000,000,000"),
        ("wine?optimizer=lbfgs", "Recipe.optimizer must be one of sgd, adam, adamw"),
        ("wein?epochs=2", "unknown problem 'wein.epochs=2': use one of digits, .* csv:FILE"),
        ("csv:", "'csv:' names no file: write csv:FILE.target=COLUMN"),
        ("parquet:file", "unknown problem 'parquet:file'"),
    ],
)
def test_what_is_wrong_is_said(name: str, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        load_problem(name)
