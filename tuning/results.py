"""Results of a search, read from the oracle's files: a table, pictures, the best model."""

import csv
import io
import json

import keras
import keras_tuner
import matplotlib.pyplot as plt
import numpy as np

from examples.common import plots
from keras_sets import callbacks

SCORE = "validation loss, best epoch"
STATUS = {"COMPLETED": "completed", "FAILED": "failed", "RUNNING": "unfinished"}


def read_trials(path):
    """One dict a trial, in the order in which they began.

    Its keys are "trial", the names of the hyperparameters, "parameters", "score", "seconds" and
    "status"; what a trial does not have is None.
    """
    try:
        oracle = json.loads((path / "oracle.json").read_text())
    except FileNotFoundError:
        return []
    # Workers send their values back in an order of their own.
    space = [entry["config"]["name"] for entry in oracle["hyperparameters"]["space"]]
    rows = []
    for trial_id in oracle["start_order"]:
        state = json.loads((path / f"trial_{trial_id}" / "trial.json").read_text())
        values = state["hyperparameters"]["values"]
        ordered = {name: values[name] for name in space if name in values}
        metrics = {
            name: metric["observations"][0]["value"][0]
            for name, metric in state["metrics"]["metrics"].items()
        }
        done = state["status"] == "COMPLETED"
        rows.append(
            {
                "trial": trial_id,
                **ordered,
                **values,
                "parameters": round(metrics["parameters"]) if done else None,
                "score": state["score"],
                "seconds": round(metrics["seconds"], 1) if done else None,
                "status": STATUS.get(state["status"], state["status"].lower()),
            }
        )
    return rows


def completed(rows):
    return [row for row in rows if row["status"] == "completed"]


def best_of(rows):
    return min(completed(rows), key=lambda row: row["score"], default=None)


def chosen(task, options, row):
    """Options of the example in a trial."""
    hyperparameters = keras_tuner.HyperParameters()
    hyperparameters.values = dict(row)
    # Hyperband gives a trial epochs of its own.
    epochs = {"epochs": row["tuner/epochs"]} if row.get("tuner/epochs") else {}
    return {**task.space(hyperparameters, options), **epochs}


def write_table(path):
    """Writes `results.csv` and returns its rows."""
    rows = read_trials(path)
    last = ["parameters", "score", "seconds", "status"]
    names = list(dict.fromkeys(name for row in rows for name in row if name not in last))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*(names or ["trial"]), *last])
    writer.writeheader()
    writer.writerows(rows)
    callbacks.write_atomically(path / "results.csv", text.getvalue())
    return rows


def save_best_model(path, row):
    """Saves the network of a trial as `best.keras`, without loss and optimizer."""
    model = keras.models.load_model(path / f"trial_{row['trial']}" / "model.keras", compile=False)
    temporary = path / ".best.part.keras"
    model.save(temporary)
    temporary.replace(path / "best.keras")


def draw(rows, title, path):
    """Parameters against score, and the best score at every depth and width."""
    rows = completed(rows)
    if not rows:
        return
    sizes(rows, title, path / "results.png")
    if all("depth" in row and "width" in row for row in rows):
        heat_map(rows, title, path / "heat_map.png")


def sizes(rows, title, path):
    """One point a trial, and the best scores that networks of at most a size have."""
    parameters = np.array([row["parameters"] for row in rows])
    scores = np.array([row["score"] for row in rows])
    figure, axis = plt.subplots(figsize=(6.4, 4.0), constrained_layout=True)
    groups = sorted({row.get("depth") for row in rows}, key=str)
    for group, marker in zip(groups, "osD^vPX*" * len(groups), strict=False):
        chosen = [row.get("depth") == group for row in rows]
        label = "trial" if group is None else f"depth {group}"
        axis.plot(parameters[chosen], scores[chosen], ls="", marker=marker, ms=6, label=label)
    for row in rows:
        axis.annotate(
            int(row["trial"]),
            (row["parameters"], row["score"]),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=7,
            color="gray",
        )
    order = np.lexsort((scores, parameters))
    front = np.minimum.accumulate(scores[order])
    axis.step(
        parameters[order], front, where="post", color="black", lw=1, label="best up to that size"
    )
    if parameters.max() > 10 * parameters.min():
        axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.set(xlabel="parameters", ylabel=SCORE)
    axis.set_title(f"{title}\na point is a trial, with its number in the table", fontsize=9)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    plots.save(figure, path)


def heat_map(rows, title, path):
    """The best score of all trials at every depth and width."""
    depths = sorted({row["depth"] for row in rows})
    widths = sorted({row["width"] for row in rows})
    best = np.full((len(depths), len(widths)), np.nan)
    counts = np.zeros(best.shape, int)
    for row in rows:
        cell = depths.index(row["depth"]), widths.index(row["width"])
        best[cell] = np.fmin(best[cell], row["score"])
        counts[cell] += 1
    figure, axis = plt.subplots(
        figsize=(2.6 + 0.9 * len(widths), 1.6 + 0.7 * len(depths)), constrained_layout=True
    )
    image = axis.imshow(best, origin="lower", aspect="auto", cmap="viridis")
    middle = (np.nanmin(best) + np.nanmax(best)) / 2
    for (i, j), count in np.ndenumerate(counts):
        text = f"{best[i, j]:.4g}\n{count} trial{'s' if count > 1 else ''}" if count else "–"
        dark = count and best[i, j] < middle
        axis.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
    axis.set_xticks(range(len(widths)), widths)
    axis.set_yticks(range(len(depths)), depths)
    axis.set(xlabel="width", ylabel="depth")
    axis.grid(False)
    figure.colorbar(image, label=SCORE)
    axis.set_title(title, fontsize=9)
    plots.save(figure, path)
