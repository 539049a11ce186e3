"""The table of small problems beyond plain multilayer perceptrons, for the same identities."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from decomposition.inputs import Inputs, each, rows_in
from decomposition.problem import Problem
from decomposition.recipe import Recipe
from tests.models import Applied, Attention, Scaled, TiedTokens

N, QUERIES, CLASSES, T = 8, 3, 3, 3


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def tokens(*shape: int, below: int) -> Tensor:
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(5))


def study(build: Callable[[], nn.Module], x: Inputs, outputs: int = CLASSES, n: int = N) -> Problem:
    """Cross-entropy over ``outputs`` classes; the last rows of ``x`` are the queries."""
    y = tokens(rows_in(x), below=outputs)
    return _problem(build, nn.CrossEntropyLoss(), x, y, n)


def regression(build: Callable[[], nn.Module], x: Inputs, outputs: int, n: int = N) -> Problem:
    """The squared error of ``outputs`` normal targets."""
    return _problem(build, nn.MSELoss(), x, normal(rows_in(x), outputs, seed=4), n)


def _problem(build: Callable, loss: nn.Module, x: Inputs, y: Tensor, n: int) -> Problem:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().double()
    train, query = each(x, lambda part: part[:n]), each(x, lambda part: part[n:])
    return Problem(model, loss, (train, y[:n]), (query, y[n:]), Recipe(), name="case")


def images(*shape: int) -> Tensor:
    return normal(N + QUERIES, *shape, seed=2)


def convolved(convolution: Callable[[], nn.Module], features: int, *shape: int) -> Problem:
    """A convolution, tanh, and a linear layer on what comes out."""

    def build() -> nn.Module:
        return nn.Sequential(convolution(), nn.Tanh(), nn.Flatten(), nn.Linear(features, CLASSES))

    return study(build, images(*shape))


def conv2d_strided() -> Problem:
    return convolved(lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), 27, 2, 5, 5)


def conv2d_padded() -> Problem:
    return convolved(lambda: nn.Conv2d(1, 2, (2, 3), padding=(1, 2)), 40, 1, 3, 3)


def conv2d_dilated() -> Problem:
    return convolved(lambda: nn.Conv2d(1, 2, 2, dilation=(2, 1), bias=False), 24, 1, 5, 5)


def conv2d_same() -> Problem:
    return convolved(lambda: nn.Conv2d(1, 2, (3, 1), padding="same"), 24, 1, 3, 4)


def conv2d_circular() -> Problem:
    return convolved(
        lambda: nn.Conv2d(1, 2, 3, padding=(1, 2), padding_mode="circular"), 40, 1, 4, 3
    )


def conv2d_reflected() -> Problem:
    """An even kernel: more is padded on one side than on the other."""
    return convolved(
        lambda: nn.Conv2d(1, 2, (2, 3), padding="same", padding_mode="reflect"), 24, 1, 4, 3
    )


def conv1d() -> Problem:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv1d(2, 3, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Conv1d(3, 2, 2, dilation=2, padding="same", padding_mode="circular"),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(8, CLASSES),
        )

    return study(build, images(2, 7))


def conv_grouped() -> Problem:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 4, 2),
            nn.Tanh(),
            nn.Conv2d(4, 4, 2, groups=2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(16, CLASSES),
        )

    return study(build, images(1, 4, 4))


def cnn() -> Problem:
    """Two convolutions with batch normalisation, pooled; in-place activations."""

    def build() -> nn.Module:
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1, bias=False),
            nn.BatchNorm2d(3),
            nn.SiLU(inplace=True),
            nn.Conv2d(3, 4, 2, stride=2),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, CLASSES),
        )
        model[1].running_mean = torch.tensor([0.3, -0.2, 0.1])
        model[1].running_var = torch.tensor([0.5, 2.0, 1.3])
        return model

    return study(build, images(1, 4, 4))


def tagging() -> Problem:
    """A label at every position, that sees the positions before it."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        h = torch.tanh(model.inner(x)).cumsum(1)
        return model.out(torch.tanh(h)).transpose(1, 2)

    def build() -> nn.Module:
        return Applied(forward, inner=nn.Linear(4, 5), out=nn.Linear(5, CLASSES))

    y = tokens(N + QUERIES, T, below=CLASSES)
    return _problem(build, nn.CrossEntropyLoss(), images(T, 4), y, N)


def image_to_image() -> Problem:
    """Two numbers at every pixel under the squared error."""

    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Conv2d(3, 2, (1, 2)))

    y = normal(N + QUERIES, 2, 2, 1, seed=4)
    return _problem(build, nn.MSELoss(), images(1, 3, 3), y, N)


def frames() -> Problem:
    """A convolution of several images for each example, folded into the rows."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        h = torch.tanh(model.conv(x.flatten(0, 1)))
        return model.out(h.flatten(1).reshape(len(x), T, -1).mean(1))

    return study(
        lambda: Applied(forward, conv=nn.Conv2d(1, 2, 2), out=nn.Linear(8, CLASSES)),
        images(T, 1, 3, 3),
    )


def sequence() -> Problem:
    """Linear layers on (n, T, d), pooled."""

    def build() -> nn.Module:
        return Applied(
            lambda m, x: m.out(torch.tanh(m.second(torch.tanh(m.first(x)))).mean(1)),
            first=nn.Linear(4, 5),
            second=nn.Linear(5, 4, bias=False),
            out=nn.Linear(4, CLASSES),
        )

    return study(build, images(T, 4))


def flattened() -> Problem:
    """Positions folded into the rows: (n·T, d)."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        h = torch.tanh(model.inner(x.reshape(-1, 4)))
        return model.out(h.reshape(len(x), T, -1).mean(1))

    return study(
        lambda: Applied(forward, inner=nn.Linear(4, 5), out=nn.Linear(5, CLASSES)), images(T, 4)
    )


def time_major() -> Problem:
    """Positions before examples, as recurrent layers have them: rows are not the examples."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        return model.out(torch.tanh(model.inner(x.transpose(0, 1))).mean(0))

    return study(
        lambda: Applied(forward, inner=nn.Linear(4, 5), out=nn.Linear(5, CLASSES)), images(T, 4)
    )


def called_twice() -> Problem:
    def build() -> nn.Module:
        return Applied(
            lambda m, x: m.out(torch.tanh(m.inner(torch.tanh(m.inner(x))))),
            inner=nn.Linear(4, 4),
            out=nn.Linear(4, CLASSES),
        )

    return study(build, images(4))


def recurrent() -> Problem:
    """An LSTM's cell, called step by step without a state at first."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        state = None
        for part in x.unbind(1):
            state = model.cell(part, state)
        return model.out(state[0])

    return study(
        lambda: Applied(forward, cell=nn.LSTMCell(2, 2), out=nn.Linear(2, CLASSES)), images(T, 2)
    )


def attention() -> Problem:
    return study(lambda: Attention(4, CLASSES), images(T, 4))


def tied() -> Problem:
    return study(lambda: TiedTokens(5, 4), tokens(N + QUERIES, 6, below=5), 5)


def embedding() -> Problem:
    """Tokens of which one is never seen, and a table of positions."""

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        h = model.token(x) + model.place(torch.arange(T))
        return model.out(torch.tanh(h).flatten(1))

    def build() -> nn.Module:
        return Applied(
            forward,
            token=nn.Embedding(6, 3),
            place=nn.Embedding(T, 3),
            out=nn.Linear(3 * T, CLASSES),
        )

    x = torch.tensor([[i // 5, i % 5, (2 * i) % 3] for i in range(N + QUERIES)])
    return study(build, x)


def layer_norm() -> Problem:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 4), nn.LayerNorm(4)
        )

    return study(build, images(4), 4)


def batch_norm() -> Problem:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, CLASSES))
        model[1].running_mean = torch.linspace(-1, 1, 5)
        model[1].running_var = torch.linspace(0.2, 3, 5)
        return model

    return study(build, images(4))


def bias_only() -> Problem:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, CLASSES))
        for layer in (model[0], model[2]):
            layer.weight.requires_grad_(False)
        return model

    return study(build, images(4))


def frozen() -> Problem:
    def build() -> nn.Module:
        model = nn.Sequential(
            nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, CLASSES)
        )
        model[0].requires_grad_(False)
        model[2].bias.requires_grad_(False)
        return model

    return study(build, images(4))


def bare_parameters() -> Problem:
    return study(lambda: Scaled(4, CLASSES), images(4))


def two_inputs() -> Problem:
    """Numbers and tokens as two arguments, under the squared error."""

    def build() -> nn.Module:
        return Applied(
            lambda m, x, t: m.out(torch.tanh(m.inner(x) + m.token(t).sum(1))),
            inner=nn.Linear(4, 5),
            token=nn.Embedding(4, 5),
            out=nn.Linear(5, 2),
        )

    return regression(build, (images(4), tokens(N + QUERIES, 2, below=4)), 2)


def named_inputs() -> Problem:
    """A dict: a sequence and which of its positions count."""

    def forward(model: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
        h = torch.tanh(model.inner(x)) * mask[:, :, None]
        return model.out(h.sum(1))

    def build() -> nn.Module:
        return Applied(forward, inner=nn.Linear(4, 5), out=nn.Linear(5, CLASSES))

    mask = tokens(N + QUERIES, T, below=2).bool()
    return study(build, {"mask": mask, "x": images(T, 4)})


GENERAL: dict[str, Callable[[], Problem]] = {
    case.__name__: case
    for case in (
        conv2d_strided,
        conv2d_padded,
        conv2d_dilated,
        conv2d_same,
        conv2d_circular,
        conv2d_reflected,
        conv1d,
        conv_grouped,
        cnn,
        frames,
        sequence,
        tagging,
        image_to_image,
        flattened,
        time_major,
        called_twice,
        recurrent,
        attention,
        tied,
        embedding,
        layer_norm,
        batch_norm,
        bias_only,
        frozen,
        bare_parameters,
        two_inputs,
        named_inputs,
    )
}
