"""The figures of the note, with least squares and the constant prediction drawn in."""

import matplotlib.pyplot as plt
import numpy as np

from examples.common import plots
from examples.power_spectrum import data
from examples.power_spectrum import evaluate

ERROR = "mean square error of log p"
MARKERS = "osD^vPX*"


def functions(highest, samples, seed, path):
    """Figure 1: one function for each of several highest frequencies, and some samples."""
    figure, axes = plt.subplots(
        1, len(highest), figsize=(3.4 * len(highest), 2.7), constrained_layout=True, sharey=True
    )
    grid = np.linspace(0, 2 * np.pi, 2000)
    for axis, kmax in zip(axes, highest, strict=True):
        # The same function, but for the frequencies it is cut off at.
        full = data.draw_functions(np.random.default_rng(seed), 1, max(highest))
        function = full[:, :kmax]
        x = np.random.default_rng([seed, 1]).uniform(0, 2 * np.pi, (1, samples))
        axis.plot(grid, data.values(function, grid[None])[0], color="tab:blue", lw=0.8)
        axis.plot(x[0], data.values(function, x)[0], ".", ms=2.5, color="black", alpha=0.5)
        axis.set(xlabel="x", title=f"kmax = {kmax}")
        axis.set_xticks([0, np.pi, 2 * np.pi], ["0", "π", "2π"])
    axes[0].set_ylabel("f(x)")
    figure.suptitle(f"A random function, and a set of {samples} of its samples", fontsize=9)
    plots.save(figure, path)


def references(axis, results, frequency=None):
    """The lines of the classical estimates."""
    for (name, errors), style in zip(
        (item for item in results.items() if not is_network(item[0])), ("-.", ":"), strict=False
    ):
        value = mean(errors, frequency)
        words = label(name, value, numbers=frequency is None)
        axis.axhline(max(value, FLOOR), color="gray", ls=style, lw=1.2, label=words)


# Where the axes end: least squares without noise has the error of rounding.
FLOOR = 1e-4


def is_network(name):
    return name.startswith(("note", "circle"))


def label(name, value, numbers=True):
    """The name of a reference, with its value unless a legend speaks of several panels."""
    if value < FLOOR:
        number = f"{value:.0e}, " if numbers else ""
        return f"{name}\n({number}below the axis)"
    return f"{name} ({value:.2f})" if name == "constant" and numbers else name


def mean(errors, frequency=None):
    return float(errors.mean() if frequency is None else errors[:, frequency].mean())


def grid_of_sizes(axis, results, options, frequency=None):
    """Error against width, a line for each depth; and the network that knows of moves."""
    trained = options.depths if "note" in options.networks else []
    for depth, marker in zip(trained, MARKERS, strict=False):
        errors = [results[f"note-{depth}x{width}"] for width in options.widths]
        values = [mean(e, frequency) for e in errors]
        axis.plot(options.widths, values, marker=marker, ms=4, lw=1.3, label=f"depth {depth}")
    for name, errors in results.items():
        if name.startswith("circle"):
            axis.plot(
                options.widths[-1:],
                [max(mean(errors, frequency), FLOOR)],
                ls="",
                marker="*",
                ms=10,
                color="tab:red",
                label="invariant to moves,\nas many parameters",
            )
    references(axis, results, frequency)
    axis.set(xscale="log", yscale="log", xlabel="width")
    axis.set_ylim(bottom=FLOOR * 0.8)
    axis.set_xticks(options.widths, [str(width) for width in options.widths])
    axis.minorticks_off()


def sizes(results, options, note, path):
    """Figure 2."""
    figure, axis = plt.subplots(figsize=(6.2, 3.6), constrained_layout=True)
    grid_of_sizes(axis, results, options)
    axis.set_ylabel(ERROR)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set_title(f"kmax = 4, all four powers\n{note}", fontsize=9)
    plots.save(figure, path)


def single_frequencies(results, options, note, path, frequencies=(1, 2, 4)):
    """Figure 3."""
    figure, axes = plt.subplots(
        1, len(frequencies), figsize=(10.5, 3.3), constrained_layout=True, sharey=True
    )
    for axis, k in zip(axes, frequencies, strict=True):
        grid_of_sizes(axis, results, options, k - 1)
        axis.set_title(f"k = {k}")
    axes[0].set_ylabel(ERROR)
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(f"kmax = 4; {note}", fontsize=9)
    plots.save(figure, path)


def error_by_size(axis, by_size, names):
    """Error against the number of samples, with the classical estimates."""
    numbers = list(by_size)
    for name, marker in zip(names, MARKERS, strict=False):
        means, errors = np.transpose([evaluate.summary(by_size[n][name]) for n in numbers])
        axis.errorbar(numbers, means, errors, marker=marker, ms=4, lw=1.3, capsize=2, label=name)
    for name, style in zip(
        [name for name in by_size[numbers[0]] if not is_network(name)], ("-.", ":"), strict=False
    ):
        means = [max(mean(by_size[n][name]), FLOOR) for n in numbers]
        axis.plot(numbers, means, color="gray", ls=style, lw=1.2, label=name)
    axis.set(xscale="log", yscale="log", xlabel="samples in a test set", ylabel=ERROR)
    axis.set_xticks(numbers, [str(n) for n in numbers], rotation=45)
    axis.minorticks_off()
    axis.set_ylim(bottom=FLOOR * 0.8)


def set_sizes(by_size, options, note, path):
    """Figure 4: the deepest networks, and the one that knows of moves."""
    figure, axis = plt.subplots(figsize=(6.6, 3.8), constrained_layout=True)
    depth = options.depths[-1]
    names = [
        name
        for name in next(iter(by_size.values()))
        if name.startswith((f"note-{depth}x", "circle"))
    ]
    error_by_size(axis, by_size, names)
    axis.axvline(options.training_samples, color="black", lw=0.8, alpha=0.5)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set_title(f"kmax = 4; trained on the size of the line\n{note}", fontsize=9)
    plots.save(figure, path)


def frequencies(results, kmax, note, path):
    """Figure 5: error of every power, for functions with fewer and with more frequencies."""
    figure, axes = plt.subplots(
        1, len(results), figsize=(10.5, 3.4), constrained_layout=True, sharey=True
    )
    for axis, (highest, by_name) in zip(axes, results.items(), strict=True):
        for (name, errors), marker in zip(by_name.items(), MARKERS, strict=False):
            k = np.arange(1, errors.shape[1] + 1)
            means = np.maximum(errors.mean(axis=0), FLOOR)
            look = {} if is_network(name) else {"color": "gray", "lw": 1, "alpha": 0.8}
            axis.plot(k, means, marker=marker, ms=4, label=name, **look)
        trained = " (as in training)" if highest == kmax else ""
        axis.set(yscale="log", xlabel="k", title=f"kmax = {highest}{trained}")
        axis.set_ylim(bottom=FLOOR * 0.8)
    axes[0].set_ylabel(ERROR)
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(f"{note}; values below {FLOOR:g} are drawn there", fontsize=9)
    plots.save(figure, path)


def appendix(results, by_size, moved, note, path):
    """Two networks of a size: errors, what a move changes, and other set sizes."""
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.6), constrained_layout=True)
    names = [name for name in results if is_network(name)]
    for name, marker in zip(names, MARKERS, strict=False):
        errors = results[name].mean(axis=0)
        k = np.arange(1, len(errors) + 1)
        axes[0].plot(k, errors, marker=marker, ms=4, label=name)
    axes[0].axhline(data.CONSTANT_ERROR, color="gray", ls=":", lw=1.2, label="constant")
    axes[0].set(yscale="log", xlabel="k", ylabel=ERROR, xticks=k, title="error of each power")
    axes[0].legend(frameon=False, fontsize=8)
    angles, changes = moved
    for name, marker in zip(names, MARKERS, strict=False):
        size = np.sqrt(np.mean(np.square(changes[name]), axis=(0, 2)))
        axes[1].plot(angles, np.maximum(size, 1e-8), marker=marker, ms=4, label=name)
    axes[1].set(yscale="log", xlabel="move of all x", title="root mean square change of log p")
    axes[1].set_xticks([0, np.pi, 2 * np.pi], ["0", "π", "2π"])
    error_by_size(axes[2], by_size, names)
    axes[2].set_title("other set sizes")
    axes[2].legend(frameon=False, fontsize=7)
    figure.suptitle(f"kmax = 4; {note}", fontsize=9)
    plots.save(figure, path)


def coda(uneven, note, path):
    """Uneven sets that weights make stand for even ones."""
    numbers = list(uneven)
    names = list(uneven[numbers[0]])
    figure, axes = plt.subplots(
        1, len(names), figsize=(4.4 * len(names), 3.7), constrained_layout=True, sharey=True
    )
    axes = np.atleast_1d(axes)
    for axis, name in zip(axes, names, strict=True):
        for kind, marker in zip(uneven[numbers[0]][name], MARKERS, strict=False):
            means, errors = np.transpose([evaluate.summary(uneven[n][name][kind]) for n in numbers])
            axis.errorbar(numbers, means, errors, marker=marker, ms=4, capsize=2, label=kind)
        axis.axhline(data.CONSTANT_ERROR, color="gray", ls=":", lw=1.2, label="constant")
        axis.set(xscale="log", yscale="log", xlabel="samples in a test set", title=name)
        axis.set_xticks(numbers, [str(n) for n in numbers], rotation=45)
        axis.minorticks_off()
    axes[0].set_ylabel(ERROR)
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(
        f"Samples that crowd around x = 0, density (1 + 0.8 cos x) / 2π; trained on even samples: "
        f"{note}",
        fontsize=9,
    )
    plots.save(figure, path)


def infinite_set(infinite, note, path):
    """The answer's way to its limit: random samples, and a grid whose pairs count in fractions."""
    figure, axes = plt.subplots(
        1, len(infinite), figsize=(4.0 * len(infinite), 3.4), layout="constrained", sharey=True
    )
    axes = np.atleast_1d(axes)
    for axis, (name, kinds) in zip(axes, infinite.items(), strict=True):
        for (kind, by_size), marker in zip(kinds.items(), MARKERS, strict=False):
            differences = [max(value, 1e-7) for value in by_size.values()]
            axis.plot(list(by_size), differences, marker=marker, ms=4, label=kind)
        sizes, differences = (
            np.array(part) for part in zip(*kinds["random samples"].items(), strict=True)
        )
        guide = differences[0] * (sizes / sizes[0]) ** -0.5
        axis.plot(sizes, guide, color="gray", ls=":", label="1/√n")
        axis.set(xscale="log", yscale="log", xlabel="pairs in the set", title=name)
    axes[0].set_ylabel("median difference of log p\nfrom the infinite set")
    axes[-1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(f"kmax = 4; {note}", fontsize=9)
    plots.save(figure, path)
