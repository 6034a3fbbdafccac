"""Draws the figures of the concept pages.

    KERAS_BACKEND=torch python docs/tools/figures.py

The figures show what the layers compute. Seeds are fixed.
"""

import pathlib

import keras
import matplotlib
import numpy as np

import keras_sets

matplotlib.use("svg")
from matplotlib import patches  # noqa: E402, after the choice of the canvas
from matplotlib import pyplot as plt  # noqa: E402

FOLDER = pathlib.Path(__file__).parent.parent / "images" / "concepts"
BLUE, ORANGE, GREEN, PINK, GRAY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#bbbbbb"
COLORS = [BLUE, ORANGE, GREEN, PINK, "#e69f00", "#56b4e9"]
STYLE = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "svg.hashsalt": "keras_sets",
}


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def points(size, seed=0):
    return np.random.default_rng(seed).normal(size=(1, size, 2)).astype("float32")


def blank(axis, title=""):
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_title(title)


def masks():
    """Three sets of different sizes in one padded batch."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.4))
    for row, size in enumerate((6, 3, 4)):
        for place in range(6):
            real = place < size
            for axis, color in ((left, COLORS[row]), (right, GREEN)):
                box = patches.Rectangle(
                    (place, 2 - row),
                    0.9,
                    0.9,
                    facecolor=color if real else "white",
                    edgecolor="black" if real else GRAY,
                    hatch=None if real else "////",
                )
                axis.add_patch(box)
            right.text(
                place + 0.45,
                2.45 - row,
                "True" if real else "False",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if real else "black",
                bbox=None if real else {"color": "white", "pad": 1},
            )
    for axis, title in ((left, "entities (3, 6, features)"), (right, "mask (3, 6)")):
        axis.set_xlim(-0.1, 6)
        axis.set_ylim(-0.1, 3)
        axis.set_aspect("equal")
        blank(axis, title)
    left.set_ylabel("sets")
    return figure


def weights():
    """Repeated entities and weights have one mean; a weight of 1/2 has its place between."""
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.4), sharex=True, sharey=True)
    places = np.array([[0.0, 0.2], [1.0, 1.0], [2.0, 0.0]], "float32")
    pooling = keras_sets.layers.MeanPooling()
    titles = "three copies of one point", "weight 3", "weight 1/2"
    for axis, title, factor in zip(axes, titles, (3, 3, 0.5), strict=True):
        given = np.array([1.0, 1.0, factor], "float32")
        mean = numpy(pooling(places[None], weights=given[None]))[0]
        axis.scatter(*places.T, s=60 * (given if title != titles[0] else 1), color=BLUE)
        if title == titles[0]:
            axis.scatter([2.0, 2.1], [0.12, 0.02], s=60, color=BLUE)
        axis.scatter(*mean, marker="x", s=80, color=ORANGE, label="MeanPooling")
        axis.set_title(title)
        axis.set_xlim(-0.5, 2.5)
        axis.set_ylim(-0.5, 1.5)
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].legend(loc="upper right", fontsize=8)
    return figure


def empty_sets():
    """Poolings while entities leave a set one by one."""
    figure, axis = plt.subplots(figsize=(6, 2.8))
    x = np.array([0.5, 1.5, 1.0, 2.0, 1.2], "float32")[None, :, None]
    sizes = np.arange(6)
    for name, color in zip(("sum", "max", "mean"), COLORS, strict=False):
        pooling = keras_sets.layers.get_pooling(name)
        pooled = [float(numpy(pooling(x, mask=np.arange(5)[None] < size))[0, 0]) for size in sizes]
        axis.plot(sizes, pooled, "o-", color=color, label=name)
    axis.invert_xaxis()
    axis.set_xlabel("entities that the mask leaves in the set")
    axis.set_ylabel("pooled value")
    axis.legend()
    return figure


def symmetry():
    """Outputs of an equivariant and of an invariant layer, before and after a permutation."""
    x, order = points(5), np.array([3, 0, 4, 1, 2])
    keras.utils.set_random_seed(0)
    dense = keras_sets.layers.PermutationEquivariantDense(3, activation="tanh")
    figure, axes = plt.subplots(2, 3, figsize=(7, 3))
    for row, (entities, colors) in enumerate(
        ((x, COLORS[:5]), (x[:, order], [COLORS[i] for i in order]))
    ):
        outputs = numpy(dense(entities))[0]
        pooled = numpy(keras_sets.layers.MaxPooling()(entities))
        for axis, values, bars in zip(
            axes[row], (entities[0], outputs, pooled), (colors, colors, ["black"]), strict=True
        ):
            width = 0.8 / values.shape[1]
            for feature in range(values.shape[1]):
                places = np.arange(len(values)) + width * feature
                axis.bar(places, values[:, feature], width, color=bars)
            axis.axhline(0, color=GRAY, lw=0.8)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_ylim(-1.5, 1.5)
    titles = "entities", "equivariant: one output an entity", "invariant: one output a set"
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    axes[0, 0].set_ylabel("one order")
    axes[1, 0].set_ylabel("another order")
    axes[0, 2].set_xlim(-1.5, 2.3)
    axes[1, 2].set_xlim(-1.5, 2.3)
    return figure


def influence(layer, size=8):
    """`[t, s]`: how much output t moves when entity s does."""
    x = points(size)
    before = numpy(layer(x))[0]
    moved = np.empty((size, size))
    for s in range(size):
        changed = x.copy()
        changed[0, s] += 1.0
        moved[:, s] = np.abs(numpy(layer(changed))[0] - before).max(axis=-1)
    return moved


def causality():
    """What each output depends on, in an equivariant and in a causal `Swarm`."""
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.9))
    for axis, pooling in zip(axes, ("mean", "causal_mean"), strict=True):
        keras.utils.set_random_seed(0)
        layer = keras_sets.layers.Swarm(4, hidden_units=8, iterations=3, pooling=pooling)
        moved = influence(layer)
        image = axis.imshow(np.where(moved > 0, np.log10(np.maximum(moved, 1e-9)), np.nan))
        image.set_clim(-3, 0)
        axis.set_title(f'Swarm, pooling="{pooling}"', fontsize=10)
        axis.set_xlabel("entity that moves")
        axis.set_ylabel("output")
        axis.set_xticks(range(8), range(1, 9))
        axis.set_yticks(range(8), range(1, 9))
    bar = figure.colorbar(image, ax=axes)
    bar.set_ticks([-3, -2, -1, 0], labels=["0.001", "0.01", "0.1", "1"])
    bar.set_label("change of the output")
    return figure


def laws():
    """How far four layers are from three laws."""
    x, rng = points(8), np.random.default_rng(1)
    order = rng.permutation(8)
    mask = np.ones((1, 8), bool)
    padded = np.concatenate([x, rng.normal(size=(1, 3, 2))], axis=1).astype("float32")
    longer = np.arange(11)[None] < 8
    changed = x.copy()
    changed[0, 4:] = rng.normal(size=(4, 2))
    makers = {
        "Swarm": lambda: keras_sets.layers.Swarm(4, iterations=3),
        "Swarm, causal": lambda: keras_sets.layers.Swarm(4, iterations=3, pooling="causal_mean"),
        "keras LSTM": lambda: keras.layers.LSTM(4, return_sequences=True),
        "keras Conv1D": lambda: keras.layers.Conv1D(4, 3, padding="same"),
    }
    errors = np.empty((len(makers), 3))
    for row, make in enumerate(makers.values()):
        keras.utils.set_random_seed(0)
        layer = make()
        given = {} if "Conv" in type(layer).__name__ else {"mask": mask}
        y = numpy(layer(x, **given))[0]
        with_padding = numpy(layer(padded, **({"mask": longer} if given else {})))[0, :8]
        for column, difference in enumerate(
            (
                numpy(layer(x[:, order], **given))[0] - y[order],
                with_padding - y,
                (numpy(layer(changed, **given))[0] - y)[:4],
            )
        ):
            errors[row, column] = np.abs(difference).max() / np.abs(y).max()
    figure, axis = plt.subplots(figsize=(6.4, 2.6))
    broken = errors > 1e-5
    axis.imshow(
        broken, cmap=matplotlib.colors.ListedColormap(["#cfe8dd", "#f6d3bd"]), aspect="auto"
    )
    for (row, column), error in np.ndenumerate(errors):
        text = "0" if error == 0 else f"{error:.0e}" if error < 1e-5 else f"{error:.2f}"
        axis.text(column, row, text, ha="center", va="center")
    axis.set_xticks(
        range(3),
        ["order:\nf(Px) - P f(x)", "padding:\nthree more places", "causal:\nlater entities change"],
    )
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(makers)), list(makers))
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return figure


def chunks():
    """A set in three chunks: states, merged and finished."""
    figure, axis = plt.subplots(figsize=(7, 2.6))
    rng = np.random.default_rng(0)

    def box(x, y, text, color):
        axis.text(
            x,
            y,
            text,
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.5", "facecolor": color, "edgecolor": "black"},
        )

    def arrow(start, end):
        axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "lw": 1.2})

    for index, color in enumerate(COLORS[:3]):
        y = 2 - index
        dots = rng.uniform(-0.35, 0.35, size=(14, 2))
        axis.scatter(0.1 + dots[:, 0], y + 0.8 * dots[:, 1], s=14, color=color)
        axis.text(-0.55, y, f"chunk {index + 1}", ha="right", va="center")
        arrow((0.6, y), (1.25, y))
        box(1.75, y, "update", "white")
        if index:
            arrow((1.75, y + 0.72), (1.75, y + 0.3))
    arrow((2.25, 0), (2.9, 0))
    box(3.5, 0, "state", "#cfe8dd")
    arrow((4.0, 0), (4.6, 0))
    box(5.1, 0, "finish", "white")
    arrow((5.6, 0), (6.2, 0))
    box(6.8, 0, "pooled", "#cfe8dd")
    axis.text(
        3.5, 0.75, "a few numbers a set,\nwhatever its size", ha="center", va="center", fontsize=9
    )
    axis.set_xlim(-1.5, 7.4)
    axis.set_ylim(-0.5, 2.5)
    blank(axis)
    return figure


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        for draw in (masks, weights, empty_sets, symmetry, causality, laws, chunks):
            figure = draw()
            figure.savefig(FOLDER / f"{draw.__name__}.svg", metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main()
