"""A GPT-2 of two layers on the bench: trained from random weights on Shakespeare's sonnets.

    python analyses/gpt2.py [--quick] [--out gpt2/]

Needs the extra `text` (Hugging Face transformers). The model is `GPT2LMHeadModel` as it is, with
characters for tokens; it predicts the next one at every place of a window. Then, for every rung and
for other approximations of the field, the relative Frobenius error against the Hessian and the GGN,
and the LDS at its own best λ against models retrained on random subsets. Also
`decompose run analyses/gpt2.py:gpt2 --also kpsvd,cg:20 --out gpt2/`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import torch
from any_model import table
from torch import nn

from decomposition import Problem, Recipe, Settings, run
from decomposition.problems.chars import ALPHABET, sonnets, windows

ALSO = "diagonal,kfac_trace,kpsvd,low_rank:100,projected:100,datainf,cg:20,cg:20:ekfac"
SETTINGS = Settings(masks=500, also=ALSO, lattice=False, matrix_norms=False)
QUICK = replace(SETTINGS, masks=40, second_order_masks=10, resamples=200)


def gpt2(
    width: int = 8, layers: int = 2, length: int = 8, examples: int = 400, queries: int = 60
) -> Problem:
    """Characters of the sonnets in windows that do not overlap, and GPT-2 at its initialisation."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        sys.modules["torchvision"] = None  # of another build of torch; text needs none
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(ALPHABET),
        n_positions=length,
        n_embd=width,
        n_layer=layers,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    tokens, last = map(torch.from_numpy, windows(sonnets(), length))
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    x, y = tokens[order], torch.column_stack([tokens[:, 1:], last])[order]
    some = slice(queries, queries + examples)
    return Problem(
        GPT2LMHeadModel(config),
        nn.CrossEntropyLoss(),
        train=(x[some], y[some]),
        query=(x[:queries], y[:queries]),
        recipe=Recipe(lr=0.3, schedule="cosine", epochs=30),
        name="gpt2",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one layer, 40 subsets")
    parser.add_argument("--out", help="folder for the result and the report")
    asked = parser.parse_args()
    problem = gpt2(layers=1, length=4, examples=200, queries=30) if asked.quick else gpt2()
    print(f"P = {problem.num_parameters:,}, N = {problem.num_examples:,}")
    print("\n".join(f"  {note}" for note in problem.notes))
    result = run(problem, out=asked.out, settings=QUICK if asked.quick else SETTINGS)
    print(table(result))


if __name__ == "__main__":
    main()
