import math
from typing import Any

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Config
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.base import SetLayer
from keras_sets.layers.over_sets import total_over_set
from keras_sets.layers.part_options import PartOptions
from keras_sets.layers.swarm_cell import SwarmCell
from keras_sets.ops import entities as entity_ops
from keras_sets.ops import gaussians

# Scales of what the readout says: the largest is that of the existence, a log odds.
DISPLACEMENT_SCALE = 2.0
SIZE_SCALE = 2.0
EXISTENCE_SCALE = 8.0
# A slot without entities has this share, for its logarithm.
LEAST_SHARE = 1e-4
CRITERIA = ("evidence", "icl")


@keras.saving.register_keras_serializable(package="keras_sets")
class SlotRefinement(PartOptions, SetLayer):
    """A swarm of slots that shares out the entities of a set among itself.

    Two populations look at each other. In every iteration each entity divides itself among
    the slots, by a softmax over the slots; each slot receives the share, the mean and the
    covariance of what it got, and runs one step of a `SwarmCell` whose pooled input is the
    mean of the hidden states of all slots. From its hidden state it reads how to answer:

    ```
    r = softmax(logits over the slots)
    share, mean, covariance = moments of the entities, weighted by r
    h, c = cell([mean, covariance, share], [h, c], pooled=mean of h over the slots)
    temperature, existence, size, displacement = readout(h)
    logits = exp(temperature) * log N(x; mean + displacement, exp(size) * covariance)
             + existence + log(share)
    ```

    With a readout of 0 an iteration is a step of expectation maximisation for a mixture of
    Gaussians. What is learned is where to depart from it: which slots give up, which ones
    move to where one is missing, which Gaussian counts for how much. The slots share their
    weights and so do the iterations; the slots differ in what they start with. At the end
    come `em_steps` plain steps with the last temperature and existence.

    Args:
        num_slots: Positive integer, the largest number of parts.
        units: Positive integer, width of the state of a slot.
        iterations: Positive integer.
        em_steps: Non-negative integer, plain steps after the iterations.
        gradient_damping: Fraction of the gradient that stops at each step on its way back
            through the moments. The way through all steps is chaotic, as that of EM is between
            two solutions, and a few sets would outweigh all others. It does not change what
            the layer computes.
        num_starts: Positive integer. With more than one the slots see the set from so many
            sides, turned and mirrored by fixed orthogonal matrices, and one answer is taken. For
            trained weights; training needs one.
        criterion: What the answer from several starts is chosen by. `"evidence"`: the
            log-likelihood of the mixture of Gaussians less Laplace's term for its parameters.
            `"icl"`: the same of the assigned entities, the integrated classification likelihood.
            It asks for gaps between clusters and is the better choice where they are not
            Gaussian: a square cut in two is no better than the square.
        scatter: Positive number, what every covariance starts from: the variance that one
            entity at the mean would have. It is learned.
        return_iterations: If True, return the logits of all steps.

    Call arguments:
        inputs: `(batch, *entities, features)`, of few features, about one unit wide: the
            covariances are full, and the cost grows with `features ** 2`.
        mask: Optional bool `(batch, *entities)`, True for a real entity.
        weights: Optional float `(batch, *entities)`, at least 0: multiplicities.
        training: Unused.

    Output shape:
        `(batch, *entities, num_slots)`, logits. With `return_iterations=True`
        `(batch, iterations + em_steps, *entities, num_slots)`.

    Masking:
        Masked entities change no output but their own, which is 0. The mask is passed on,
        unless the iterations are returned.

    Symmetry:
        Equivariant to the order of the entities. What the slots start with is a weight for
        each of them: permuted weights permute the logits. Covariances have a prior of fixed
        mass, so that a common factor of the weights does matter, less the larger the set.

    Precision:
        Second moments are differences of squares: the layer computes in float32 or wider,
        and is float32 by default under every global policy.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.SlotRefinement(num_slots=4, units=16, iterations=3)
    >>> points = np.random.default_rng(0).normal(size=(8, 100, 2))
    >>> tuple(layer(points).shape)
    (8, 100, 4)

    Reference:
        [Vollgraf, 2019, Learning Set-equivariant Functions with SWARM
        Mappings](https://arxiv.org/abs/1906.09400), for the cell;
        [Locatello et al., 2020, Object-Centric Learning with Slot
        Attention](https://arxiv.org/abs/2006.15055), algorithm 1, for the softmax over
        slots; [Biernacki et al., 2000, Assessing a Mixture Model for Clustering with the
        Integrated Completed Likelihood](https://doi.org/10.1109/34.865189), for the criterion;
        [Fraley and Raftery, 2007, Bayesian Regularization for Normal Mixture
        Estimation](https://doi.org/10.1007/s00357-007-0004-5), for the prior.
    """

    def __init__(
        self,
        num_slots: int,
        units: int = 32,
        iterations: int = 8,
        em_steps: int = 3,
        gradient_damping: float = 0.3,
        num_starts: int = 1,
        criterion: str = "evidence",
        scatter: float = 0.03,
        return_iterations: bool = False,
        **kwargs: Any,
    ) -> None:
        num_slots = validation.positive_integer("num_slots", num_slots)
        units = validation.positive_integer("units", units)
        iterations = validation.positive_integer("iterations", iterations)
        em_steps = validation.non_negative_integer("em_steps", em_steps)
        gradient_damping = validation.fraction("gradient_damping", gradient_damping)
        num_starts = validation.positive_integer("num_starts", num_starts)
        validation.one_of("criterion", criterion, CRITERIA)
        scatter = validation.positive_number("scatter", scatter)
        super().__init__(**{"dtype": "float32", **kwargs})
        self.num_slots = num_slots
        self.units = units
        self.iterations = iterations
        self.em_steps = em_steps
        self.gradient_damping = gradient_damping
        self.num_starts = num_starts
        self.criterion = criterion
        self.scatter = scatter
        self.return_iterations = validation.boolean("return_iterations", return_iterations)
        self.cell = SwarmCell(units, name="cell", **self._part_arguments())
        self.readout: Any = None  # its width is known in `build`

    @property
    def _parts(self):
        return [self.cell] + ([] if self.readout is None else [self.readout])

    def build(self, input_shape: Shape) -> None:
        features = input_shape[-1]
        if features is None:
            raise ValueError(
                f"Layer '{self.name}' needs to know the size of the last axis of `inputs`. "
                f"Received: inputs.shape={tuple(input_shape)}"
            )
        width = gaussians.monomial_count(features)
        self.initial_scores = self.add_weight(
            name="initial_scores",
            shape=(self.num_slots, width),
            initializer=self._initial_scores(features),
        )
        self.initial_states = self.add_weight(
            name="initial_states",
            shape=(self.num_slots, self.units),
            initializer=keras.initializers.RandomNormal(stddev=0.5),
        )
        # Logarithms of the scatter and of the mass that every covariance starts from.
        self.prior = self.add_weight(
            name="prior",
            shape=(2,),
            initializer=keras.initializers.Constant([math.log(self.scatter), 0.0]),
        )
        self.cell.build((input_shape[0], self.num_slots, width + 1))
        self.readout = keras.layers.Dense(
            3 + features,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01 / self.units**0.5),
            name="readout",
            **self._part_arguments(),
        )
        self.readout.build((input_shape[0], self.num_slots, self.units))
        self._restore_parts()
        self.input_spec = keras.layers.InputSpec(min_ndim=3, axes={-1: features})
        self.built = True

    @staticmethod
    def _initial_scores(features):
        """Mostly linear scores: a slot starts with the entities in one direction."""

        def initialize(shape, dtype=None):
            slots, width = shape
            linear = keras.random.normal((slots, features), stddev=1.5, dtype=dtype)
            quadratic = keras.random.normal((slots, width - 1 - features), stddev=0.3, dtype=dtype)
            return ops.concatenate([ops.zeros((slots, 1), dtype), linear, quadratic], axis=1)

        return initialize

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        shape = (*ops.shape(x)[:-1], self.num_slots)
        x = entity_ops.flatten_entities(ops.cast(x, set_ops.accumulation_dtype(x)))
        counts = entity_ops.flatten_entities(entity_ops.counts_of(x, mask, weights))
        counts = ops.expand_dims(counts[..., 0], 1)
        size = total_over_set(ops.sum(counts, axis=-1))
        if self.num_starts == 1:
            basis = gaussians.monomials(x)
            steps = self._refine(basis, counts, size, self._prior(basis))
        else:
            steps = self._best_start(x, counts, size)

        def as_output(logits):
            logits = ops.reshape(ops.transpose(logits, (0, 2, 1)), shape)
            return set_ops.apply_mask(ops.cast(logits, self.compute_dtype), mask)

        if self.return_iterations:
            return ops.stack([as_output(logits) for logits in steps], axis=1)
        return as_output(steps[-1])

    def _best_start(self, x, counts, size):
        """`_refine` from several sides of the set, of which the evidence chooses one."""
        turns = gaussians.isometries(self.num_starts, x.shape[-1])
        turned = [x @ ops.convert_to_tensor(turn, x.dtype) for turn in turns]
        basis = gaussians.monomials(ops.concatenate(turned, axis=0))
        counts = ops.tile(counts, (self.num_starts, 1, 1))
        size = ops.tile(size, (self.num_starts, 1))
        prior = self._prior(basis)
        steps = self._refine(basis, counts, size, prior)
        by_evidence = self.criterion == "evidence"
        logits = steps[-1] if by_evidence else gaussians.assign(steps[-1])
        share, mean, _, factor = self._receive(logits, basis, counts, size, prior)
        if by_evidence:
            likelihood = gaussians.log_likelihood(share, mean, factor, basis, counts)
            likelihood = total_over_set(likelihood)
            evidence = gaussians.log_evidence(likelihood, share, size, x.shape[-1])
        else:
            evidence = gaussians.classification_likelihood(share, mean, factor, size)
        steps = steps if self.return_iterations else steps[-1:]
        return [gaussians.best_start(logits, evidence, self.num_starts) for logits in steps]

    def _refine(self, basis, counts, size, prior):
        """Logits `(batch, slots, n)` after every step.

        Args:
            basis: `(batch, n, m)`, the monomials of the entities.
            counts: `(batch, 1, n)`, how often each of them counts.
            size: `(batch, 1)`, the sum of the counts over the whole set.
            prior: As of `_prior`.
        """
        transposed = ops.transpose(basis, (0, 2, 1))
        h = ops.broadcast_to(
            self.in_compute_dtype(self.initial_states),
            (ops.shape(basis)[0], self.num_slots, self.units),
        )
        c = ops.zeros_like(h)
        logits = ops.cast(ops.convert_to_tensor(self.initial_scores), basis.dtype) @ transposed
        steps = []
        # Written out: as a loop, JAX compiles it as long and runs it 1.5 times as long.
        for step in range(self.iterations + self.em_steps):
            received = self._receive(logits, basis, counts, size, prior)
            learned = step < self.iterations
            if learned:
                description = ops.cast(gaussians.describe(*received), h.dtype)
                pooled = ops.cast(set_ops.set_mean(h, keepdims=True), h.dtype)
                h, (_, c) = self.cell(description, [h, c], pooled=pooled)
                reading = ops.cast(self.readout(h), basis.dtype)
            logits = self._coefficients(*received, reading, learned) @ transposed
            steps.append(logits)
        return steps

    def _prior(self, basis):
        """The scatter `(m - 1 - d,)` and the mass that every covariance starts from."""
        prior = ops.exp(ops.cast(ops.convert_to_tensor(self.prior), basis.dtype))
        return gaussians.isotropic(prior[0], gaussians.dimensions_of(basis.shape[-1])), prior[1]

    def _receive(self, logits, basis, counts, size, prior):
        """Share, mean, covariance and Cholesky factor of what every slot gets."""
        shares = ops.softmax(logits, axis=1) * counts
        moments = total_over_set(shares @ basis)
        damping = self.gradient_damping
        moments = (1 - damping) * moments + damping * ops.stop_gradient(moments)
        mass, mean, covariance = gaussians.of_moments(moments, *prior)
        share = entity_ops.safe_ratio(mass, size)
        factor = gaussians.cholesky(covariance, mean.shape[-1])
        return share + LEAST_SHARE, mean, covariance, factor

    @staticmethod
    def _coefficients(share, mean, covariance, factor, reading, learned):
        """The logits of a slot as coefficients of the monomials, `(batch, slots, m)`."""
        log_size = None
        if learned:
            mean = mean + DISPLACEMENT_SCALE * reading[..., 3:]
            log_size = SIZE_SCALE * reading[..., 2:3]
        density = gaussians.density_coefficients(mean, factor, log_size)
        density = ops.exp(reading[..., :1]) * density
        offset = EXISTENCE_SCALE * reading[..., 1:2] + ops.expand_dims(ops.log(share), -1)
        return ops.concatenate([density[..., :1] + offset, density[..., 1:]], axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        steps = (self.iterations + self.em_steps,) if self.return_iterations else ()
        return (input_shape[0], *steps, *input_shape[1:-1], self.num_slots)

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> Tensor | None:
        return None if self.return_iterations else super().compute_mask(inputs, previous_mask)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_slots": self.num_slots,
            "units": self.units,
            "iterations": self.iterations,
            "em_steps": self.em_steps,
            "gradient_damping": self.gradient_damping,
            "num_starts": self.num_starts,
            "criterion": self.criterion,
            "scatter": self.scatter,
            "return_iterations": self.return_iterations,
        }
