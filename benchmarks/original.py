"""The original formulation in plain PyTorch, for comparison.

One linear map of the inputs with a bias, one of the hidden state, one of the pooled state,
all in every iteration; the pooled state is expanded to all entities before it is projected.
"""

import torch
from torch import nn


class Swarm(nn.Module):
    """Swarm layer `(batch, n, features)` to `(batch, n, units)`."""

    def __init__(self, features, units, hidden_units, iterations, causal=False):
        super().__init__()
        self.hidden_units = hidden_units
        self.iterations = iterations
        self.causal = causal
        self.from_inputs = nn.Linear(features, 4 * hidden_units)
        self.from_hidden = nn.Linear(hidden_units, 4 * hidden_units, bias=False)
        self.from_pooled = nn.Linear(hidden_units, 4 * hidden_units, bias=False)
        self.output = nn.Linear(2 * hidden_units, units)

    def pool(self, h):
        if not self.causal:
            return h.mean(dim=1, keepdim=True).expand_as(h)
        counts = torch.arange(1, h.shape[1] + 1, dtype=h.dtype, device=h.device)
        return h.cumsum(dim=1) / counts[:, None]

    def forward(self, x):
        h = c = x.new_zeros((*x.shape[:-1], self.hidden_units))
        for _ in range(self.iterations):
            pooled = self.pool(h)
            gates = self.from_inputs(x) + self.from_hidden(h) + self.from_pooled(pooled)
            i, f, o, g = gates.chunk(4, dim=-1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.output(torch.cat([h, c], dim=-1))
