from typing import Any

import keras
from keras import ops

from keras_sets import ops as set_ops
from keras_sets import validation
from keras_sets._typing import Activation
from keras_sets._typing import Config
from keras_sets._typing import Constraint
from keras_sets._typing import Initializer
from keras_sets._typing import Regularizer
from keras_sets._typing import Shape
from keras_sets._typing import Tensor
from keras_sets.layers.base import SetLayer
from keras_sets.layers.weight_options import WeightOptions
from keras_sets.layers.weight_options import own_seed
from keras_sets.ops import graph as graph_ops
from keras_sets.ops import linear as linear_ops

ORDERS = (0, 1, 2)

# The operations from an input order (first) to an output order (second).
BASES = {
    (0, 0): ("identity",),
    (0, 1): ("broadcast",),
    (0, 2): ("broadcast", "diagonal"),
    (1, 0): ("mean",),
    (1, 1): ("identity", "mean"),
    (1, 2): ("rows", "columns", "diagonal", "mean", "mean to diagonal"),
    (2, 0): ("trace", "total"),
    (2, 1): ("diagonal", "row means", "column means", "trace", "total"),
    (2, 2): (
        "identity",
        "transpose",
        "diagonal to diagonal",
        "row means to diagonal",
        "column means to diagonal",
        "diagonal to rows",
        "row means to rows",
        "column means to rows",
        "diagonal to columns",
        "row means to columns",
        "column means to columns",
        "trace",
        "total",
        "trace to diagonal",
        "total to diagonal",
    ),
}


@keras.saving.register_keras_serializable(package="keras_sets")
class GraphEquivariantDense(WeightOptions, SetLayer):
    """The most general linear layer between node tensors, equivariant to node order.

    Features of order 0 belong to the whole graph, of order 1 to its nodes, of order 2 to
    pairs of nodes (edges; the diagonal holds what belongs to nodes). The layer is
    `activation(sum_b B_b(x) @ kernel[b] + bias)` over a basis B_b of all linear equivariant
    operations: reading the diagonal, means over rows, columns and everything, writing to
    the diagonal, along rows, along columns and everywhere, and the transpose. There are 15
    of them from order 2 to 2, 5 from 2 to 1 and from 1 to 2, 2 from 1 to 1 and from 2 to 0,
    whatever the number of nodes.

    Sums over nodes are means, so that the size of the graph does not matter. Time and
    memory are quadratic in the number of nodes, like the edges themselves.

    Args:
        units: Positive integer, width of the output.
        input_order: 0, 1 or 2.
        output_order: 0, 1 or 2.
        activation: Activation function. None is the identity.
        use_bias: Whether to add a bias: one for all outputs, and for output order 2 another
            one for the diagonal.
        kernel_initializer, bias_initializer: Initializers.
        kernel_regularizer, bias_regularizer: Regularizers.
        kernel_constraint, bias_constraint: Constraints.

    Call arguments:
        inputs: `(batch, features)`, `(batch, n, features)` or `(batch, n, n, features)`,
            after `input_order`.
        mask: Optional bool `(batch, n)`, True for a real node, whatever the order.
        weights: Optional float `(batch, n)`, at least 0: multiplicities of the nodes. From
            order 0 to 1 or 2, a mask or weights have to say how many nodes there are.

    Output shape:
        `(batch, units)`, `(batch, n, units)` or `(batch, n, n, units)`, after
        `output_order`.

    Masking:
        Masked nodes and their edges change no output but their own, which are 0. A mask of
        what is there is passed on: `(batch, n)` for nodes, `(batch, n, n)` for edges, none for
        order 0. Where Keras carries a mask of edges along with the inputs, edges that it
        leaves out count as 0, and nodes without any edge are absent.

    Symmetry:
        Equivariant to permutations of the nodes (invariant for output order 0). Integer
        weights equal repetition of a node, where the edges between copies of a node hold
        what its diagonal held, for all outputs but the edges between different copies of
        one node, which a single node does not have.

    Attributes:
        kernel: `(operations, features, units)`, in the order of
            `keras_sets.layers.graph_equivariant_dense.BASES`.
        bias, diagonal_bias: `(units,)`.

    Example:

    >>> import numpy as np, keras_sets
    >>> layer = keras_sets.layers.GraphEquivariantDense(4, input_order=2, output_order=2)
    >>> layer(np.ones((2, 5, 5, 3))).shape == (2, 5, 5, 4)
    True
    >>> tuple(layer.kernel.shape)
    (15, 3, 4)

    Reference:
        [Maron et al., 2019, Invariant and Equivariant Graph
        Networks](https://arxiv.org/abs/1812.09902), appendix A.
    """

    def __init__(
        self,
        units: int,
        input_order: int,
        output_order: int,
        activation: Activation = None,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer = None,
        bias_regularizer: Regularizer = None,
        kernel_constraint: Constraint = None,
        bias_constraint: Constraint = None,
        **kwargs: Any,
    ) -> None:
        units = validation.positive_integer("units", units)
        validation.one_of("input_order", input_order, ORDERS)
        validation.one_of("output_order", output_order, ORDERS)
        super().__init__(**kwargs)
        self.units = units
        self.input_order = int(input_order)
        self.output_order = int(output_order)
        self.activation = keras.activations.get(activation)
        self.use_bias = validation.boolean("use_bias", use_bias)
        self._set_weight_options(
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )

    @property
    def symmetry(self) -> str:
        return "invariant" if self.output_order == 0 else "equivariant"

    def check_arguments(
        self, inputs: Tensor, mask: Tensor | None = None, weights: Tensor | None = None
    ) -> None:
        validation.check_one_tensor(self.name, inputs)
        shape = validation.shape_of(inputs)
        nodes = shape[1:-1]
        described = ("batch", *"n" * self.input_order, "features")
        square = len(nodes) != 2 or None in nodes or nodes[0] == nodes[1]
        if len(shape) != len(described) or not square:
            raise ValueError(
                f"Layer '{self.name}' of input order {self.input_order} expects `inputs` of "
                f"shape `({', '.join(described)})`. Received: inputs.shape={shape}"
            )
        validation.check_features(self.name, shape)
        if self.input_order == 0 and self.output_order > 0 and mask is None and weights is None:
            raise ValueError(
                f"Layer '{self.name}' makes order {self.output_order} of order 0 and expects a "
                "`mask` or `weights` of shape `(batch, n)` for the number of nodes. Received: "
                "mask=None, weights=None"
            )
        expected = (shape[0], nodes[0] if nodes else None)
        validation.check_multiplicities(self.name, "(batch, n)", shape, expected, mask, weights)

    def build(self, input_shape: Shape) -> None:
        basis = BASES[self.input_order, self.output_order]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(len(basis), input_shape[-1], self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = self.diagonal_bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=own_seed(self.bias_initializer, "bias"),
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
            if self.output_order == 2:
                self.diagonal_bias = self.add_weight(
                    name="diagonal_bias",
                    shape=(self.units,),
                    initializer=own_seed(self.bias_initializer, "diagonal_bias"),
                    regularizer=self.bias_regularizer,
                    constraint=self.bias_constraint,
                )
        self.input_spec = keras.layers.InputSpec(axes={-1: input_shape[-1]})
        self.built = True

    def prepare(
        self, inputs: Tensor, mask: Tensor | None = None, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x = self.cast_inputs(inputs)
        if mask is not None:
            if self._is_of_edges(mask):
                x = set_ops.apply_mask(x, mask)
            mask = self._nodes_of(mask)
            self.check_arguments(inputs, mask, weights)
        mask, weights = set_ops.multiplicities(mask, weights, set_ops.accumulation_dtype(x))
        zero = (lambda x, _: x, set_ops.apply_mask, graph_ops.apply_edge_mask)[self.input_order]
        return zero(x, mask), mask, weights

    def compute(
        self, x: Tensor, mask: Tensor | None, weights: Tensor | None, training: bool | None
    ) -> Tensor:
        read = (self._read_graph, self._read_nodes, self._read_edges)[self.input_order]
        write = (self._write_graph, self._write_nodes, self._write_edges)[self.output_order]
        return write(*read(x, mask, weights), mask)  # type: ignore[call-arg]

    # Reading: what the input gives to single edges, to nodes and to the whole graph.

    def _read_graph(self, x, mask, weights):
        return None, None, [x], mask if mask is not None else weights

    def _read_nodes(self, x, mask, weights):
        mean = ops.cast(set_ops.set_mean(x, mask, weights), x.dtype)
        return None, [x], [mean], x

    def _read_edges(self, x, mask, weights):
        nodes, totals = graph_ops.reduce_edges(x, mask, weights)
        nodes, totals = ([ops.cast(t, x.dtype) for t in ts] for ts in (nodes, totals))
        return x, nodes, totals, x

    # Writing: projects what is read, all of one kind in one product, and spreads it.

    def _project(self, parts, targets, first):
        """Sums `parts[p] @ kernel` for every target; returns a list of `targets` tensors.

        The kernel of target t and part p stands at place `first + t * len(parts) + p`.
        """
        count = len(parts)
        kernel = self.in_compute_dtype(self.kernel)[first : first + targets * count]
        features = kernel.shape[1]
        kernel = ops.reshape(kernel, (targets, count * features, self.units))
        kernel = ops.reshape(
            ops.transpose(kernel, (1, 0, 2)), (count * features, targets * self.units)
        )
        both = ops.concatenate(parts, axis=-1) if count > 1 else parts[0]
        y = linear_ops.linear(both, kernel)
        return ops.split(y, targets, axis=-1) if targets > 1 else [y]

    def _add_bias(self, y):
        return y if self.bias is None else y + self.in_compute_dtype(self.bias)

    def _write_graph(self, edges, nodes, totals, like, mask):
        return self.activation(self._add_bias(self._project(totals, 1, 0)[0]))

    def _write_nodes(self, edges, nodes, totals, like, mask):
        first = 0 if nodes is None else len(nodes)
        y = ops.expand_dims(self._project(totals, 1, first)[0], 1)
        if nodes is None:
            y = self._per_node(y, like)
        else:
            y = y + self._project(nodes, 1, 0)[0]
        return set_ops.apply_mask(self.activation(self._add_bias(y)), mask)

    def _write_edges(self, edges, nodes, totals, like, mask):
        place = 0 if edges is None else 2
        if nodes is None:
            diagonal = rows = columns = None
        elif edges is None:
            rows, columns, diagonal = self._project(nodes, 3, place)
            place += 3
        else:
            diagonal, rows, columns = self._project(nodes, 3, place)
            place += 9
        everywhere, on_diagonal = (
            ops.expand_dims(self._add_bias(t) if i == 0 else t, 1)
            for i, t in enumerate(self._project(totals, 2, place))
        )
        if self.diagonal_bias is not None:
            on_diagonal = on_diagonal + self.in_compute_dtype(self.diagonal_bias)
        if nodes is None:
            rows = self._per_node(everywhere, like)
            diagonal, columns = self._per_node(on_diagonal, like), ops.zeros_like(rows)
        else:
            rows, diagonal = rows + everywhere, diagonal + on_diagonal
        y = graph_ops.edges_from_nodes(diagonal, rows, columns)
        if edges is not None:
            straight, transposed = self._project([edges], 2, 0)
            y = y + straight + ops.transpose(transposed, (0, 2, 1, 3))
        return graph_ops.apply_edge_mask(self.activation(y), mask)

    @staticmethod
    def _per_node(y, like):
        """`(batch, 1, units)` at every node, for `like` of shape `(batch, n)`."""
        return ops.broadcast_to(y, (*ops.shape(like), y.shape[-1]))

    def _is_of_edges(self, mask):
        return self.input_order == 2 and len(mask.shape) == 3

    def _nodes_of(self, mask):
        """A mask of edges as one of their nodes; masks of nodes stay."""
        return graph_ops.nodes_of_edges(mask) if self._is_of_edges(mask) else mask

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None = None) -> Tensor | None:
        if previous_mask is None or self.output_order == 0:
            return None
        nodes = ops.cast(self._nodes_of(previous_mask), "bool")
        if self.output_order == 1:
            return nodes
        return ops.logical_and(ops.expand_dims(nodes, 2), ops.expand_dims(nodes, 1))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n = input_shape[1] if self.input_order > 0 else None
        return (input_shape[0], *(n,) * self.output_order, self.units)

    def compute_output_spec(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        shape = self.compute_output_shape(inputs.shape)
        if self.input_order == 0:
            # Mask or weights say how many nodes there are.
            given = next((t for t in (mask, weights) if t is not None), None)
            n = None if given is None else given.shape[1]
            shape = (shape[0], *(n,) * self.output_order, shape[-1])
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "input_order": self.input_order,
            "output_order": self.output_order,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **self._weight_options_config(),
        }
