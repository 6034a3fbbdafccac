"""The original formulation in plain PyTorch, for comparison.

A linear map of the inputs with a bias, one of the hidden state and one of the pooled state,
which is expanded to all entities before it is projected; the state is zero before the first
iteration, which has the inputs alone. As published, the maps are convolutions of size 1 on
arrays whose features come before the entities: these lie on a line for sets, whose inputs are
projected once, and on a grid for images, where they are in every iteration.
"""

import math

import torch
from torch import nn


class Swarm(nn.Module):
    """Swarm layer `(batch, n, features)` to `(batch, n, units)`.

    With `convolutions=False` the maps are `nn.Linear`, and features come last.
    """

    def __init__(self, features, units, hidden_units, iterations, causal=False, convolutions=True):
        super().__init__()
        self.iterations = iterations
        self.causal = causal
        self.convolutions = convolutions
        # Their axes; those of a grid are merged where they are pooled.
        self.features, self.entities = (1, 2) if convolutions else (2, 1)

        def linear(size_in, size_out, bias=True):
            if not convolutions:
                return nn.Linear(size_in, size_out, bias)
            return (nn.Conv2d if causal else nn.Conv1d)(size_in, size_out, 1, bias=bias)

        self.from_inputs = linear(features, 4 * hidden_units)
        self.from_hidden = linear(hidden_units, 4 * hidden_units, bias=False)
        self.from_pooled = linear(hidden_units, 4 * hidden_units, bias=False)
        self.output = linear(2 * hidden_units, units)

    def pool(self, h):
        merged = h.flatten(2)
        if not self.causal:
            return merged.mean(self.entities, keepdim=True).expand_as(h)
        n = merged.shape[self.entities]
        counts = torch.arange(1, n + 1, dtype=h.dtype, device=h.device)
        if not self.convolutions:
            counts = counts[:, None]
        return (merged.cumsum(self.entities) / counts).view_as(h)

    def forward(self, x):
        if self.convolutions:
            x = x.transpose(1, 2)
            if self.causal:
                n = x.shape[2]
                rows = next(i for i in range(math.isqrt(n), 0, -1) if n % i == 0)
                x = x.unflatten(2, (rows, n // rows))
        gates = projected = self.from_inputs(x)
        h, c = None, torch.zeros_like(gates.chunk(4, dim=self.features)[0])
        for _ in range(self.iterations):
            if h is not None:
                if self.causal:
                    projected = self.from_inputs(x)
                gates = projected + self.from_hidden(h) + self.from_pooled(self.pool(h))
            i, f, o, g = gates.chunk(4, dim=self.features)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        outputs = self.output(torch.cat([h, c], dim=self.features))
        return outputs.flatten(2).transpose(1, 2) if self.convolutions else outputs
