"""Command line of the image transformer; see `--help`."""

import pathlib
import re
import time

from examples.common import options as common
from examples.common.image_sources import SOURCES
from examples.image_transformer.names import IDX
from examples.image_transformer.names import REFERENCES

DEFAULTS = {
    "epochs": 100,
    "time_budget": 20.0,
    "batch_size": 20,
    "optimizer": "muon",
    "learning_rate": 0.005,
    "schedule": "cosine",
}
SMOKE = {
    "hidden": 8,
    "iterations": 2,
    "images": 40,
    "epochs": 2,
    "batch_size": 12,
    "columns": 2,
    "recognition_samples": 2,
}


def parse(arguments=None):
    parser = common.make_parser(
        "image_transformer",
        "Train a causal SWARM on images in bits per dimension, draw images from it, and "
        "complete upper halves.",
        DEFAULTS,
    )
    integer = common.positive_integer
    data = common.add_data_group(
        parser,
        list(SOURCES),
        "digits come with scikit-learn, the others with TensorFlow Datasets; bw_cifar is "
        "cifar10 without colours, small its 16 x 16 pixels in the middle",
    )
    data.add_argument(
        "--prepare-from",
        metavar="DIR",
        help=f"prepare {' or '.join(IDX)} in --data-dir from the four idx files in a folder "
        "(.gz or not), without a network, then exit",
    )
    data.add_argument("--images", type=integer, metavar="N", help="use N of them at most")
    data.add_argument(
        "--distortion",
        type=common.fraction,
        default=0.0,
        metavar="S",
        help="shear, turn, stretch and move every other training image at random, by about S of "
        "its size: against overfitting where images are few",
    )

    model = parser.add_argument_group("model")
    model.add_argument("--hidden", type=integer, default=64, help="width of embeddings and cells")
    model.add_argument("--layers", type=integer, default=1, help="number of swarm layers")
    model.add_argument("--iterations", type=integer, default=6, help="of each layer")
    model.add_argument(
        "--feed-forward",
        type=integer,
        metavar="N",
        help="make every layer a block of a transformer, with a feed-forward network of N units, "
        "residuals and normalizations",
    )
    model.add_argument(
        "--heads",
        type=integer,
        metavar="N",
        help="pool by linear attention with N heads, in place of the mean",
    )
    model.add_argument(
        "--activation",
        choices=["relu", "elu", "leaky_relu", "gelu"],
        default="relu",
        help="between layers, or in feed-forward networks",
    )
    model.add_argument("--conditional", action="store_true", help="model images given their class")
    model.add_argument(
        "--learned-locations", action="store_true", help="in place of sines and cosines"
    )
    model.add_argument(
        "--neighborhood",
        type=common.non_negative_integer,
        default=0,
        metavar="R",
        help="give every place its earlier neighbors up to R pixels away, too: their values, "
        "and their states in every iteration",
    )
    model.add_argument(
        "--dropout",
        type=common.fraction,
        default=0.0,
        help="rate; all pixels lose the same features",
    )
    model.add_argument(
        "--embedding-dropout",
        type=common.fraction,
        default=0.0,
        metavar="RATE",
        help="of what the network is given; all pixels lose the same features",
    )
    model.add_argument("--remat", action="store_true", help="less memory, more time")
    model.add_argument(
        "--name",
        help="data set, size and kind in one, as in the name of a run: "
        "mnist-256x1-10-conditional-learned-neighborhood2",
    )
    parser.add_argument(
        "--steps",
        type=integer,
        metavar="N",
        help="call N batches an epoch (default: as many as hold all images)",
    )
    parser.add_argument(
        "--references",
        nargs="*",
        choices=list(REFERENCES),
        default=list(REFERENCES),
        help="networks of the same size to train as long, after the first",
    )
    parser.add_argument(
        "--accumulate",
        type=integer,
        default=1,
        metavar="N",
        help="compute the gradients of a batch in N parts, when it does not fit in memory",
    )

    drawing = parser.add_argument_group("drawing")
    drawing.add_argument("--sample", metavar="FILE", help="draw from this .keras file, then exit")
    drawing.add_argument("--columns", type=integer, default=10, metavar="N", help="images a row")
    drawing.add_argument(
        "--recognition-samples",
        type=integer,
        default=100,
        metavar="N",
        help="images of each class that a classifier of real images is asked about",
    )
    drawing.add_argument(
        "--temperature",
        type=common.positive_number,
        default=1.0,
        metavar="T",
        help="below 1 likely values are drawn more often than the network says, above 1 less often",
    )
    drawing.add_argument(
        "--top-k", type=integer, metavar="K", help="draw from the K likeliest values only"
    )
    options = common.parse(
        parser,
        SMOKE,
        arguments,
        free="columns data_dir name prepare_from recognition_samples references temperature "
        "top_k".split(),
    )
    if options.name is not None:
        given = dict(vars(options))
        try:
            read_name(options)
        except ValueError as error:
            parser.error(f"argument --name: {error}")
        for key, value in vars(options).items():
            if given[key] not in (value, parser.get_default(key)):
                parser.error(
                    f"argument --name: it says {key.replace('_', '-')} {value}, but "
                    f"--{key.replace('_', '-')} is given as well. Received: {given[key]}"
                )
    if options.prepare_from is not None and options.data_set not in IDX:
        parser.error(
            f"argument --prepare-from: expected --data-set {' or '.join(IDX)}, received "
            f"{options.data_set}"
        )
    if options.batch_size % (options.accumulate * options.devices):
        parser.error(
            f"argument --accumulate: the batch size {options.batch_size} is not a multiple of "
            f"{options.accumulate}" + f" times {options.devices} devices" * (options.devices > 1)
        )
    if options.devices > 1 and (options.sample or options.prepare_from):
        parser.error("argument --devices: --sample and --prepare-from train nothing")
    return options


def run_name(options):
    name = f"{options.data_set}-{options.hidden}x{options.layers}-{options.iterations}"
    name += "-conditional" * options.conditional + "-learned" * options.learned_locations
    name += f"-neighborhood{options.neighborhood}" if options.neighborhood else ""
    name += f"-feedforward{options.feed_forward}" if options.feed_forward else ""
    name += f"-heads{options.heads}" if options.heads else ""
    return name + (f"-{options.run}" if options.run else "")


def read_name(options):
    """Sets the options that a name is made of; raises ValueError when it is none."""
    pattern = r"(\w+)-(\d+)x(\d+)-(\d+)(-conditional)?(-learned)?(?:-neighborhood(\d+))?"
    pattern += r"(?:-feedforward(\d+))?(?:-heads(\d+))?"
    match = re.fullmatch(pattern, options.name)
    if match is None or match[1] not in SOURCES:
        raise ValueError(
            "expected DATA-HIDDENxLAYERS-ITERATIONS[-conditional][-learned][-neighborhoodR]"
            f"[-feedforwardN][-headsN] with DATA one of {', '.join(SOURCES)}, received "
            f"{options.name!r}"
        )
    options.data_set = match[1]
    options.hidden, options.layers, options.iterations = (int(match[i]) for i in (2, 3, 4))
    options.conditional, options.learned_locations = bool(match[5]), bool(match[6])
    options.neighborhood = int(match[7] or 0)
    options.feed_forward, options.heads = (int(match[i]) if match[i] else None for i in (8, 9))


def generate_rows(model, options, columns):
    """Images in ten rows, or in one for each class, and the number of the row of each."""
    import numpy as np

    from keras_sets import models

    classes = model.get_layer("embedding").classes
    rows = np.repeat(np.arange(classes or 10), columns)
    images = models.generate(
        model,
        len(rows),
        labels=None if classes is None else rows,
        temperature=options.temperature,
        top_k=options.top_k,
        seed=options.seed,
    )
    return images, rows


def drawing_milliseconds(model, options):
    """Time for an image of a row for each class, or of ten, drawn together; None if it cannot."""
    from keras_sets import models

    count = model.get_layer("embedding").classes or 10
    labels = list(range(count)) if options.conditional else None
    draw = lambda: models.generate(model, count, labels=labels, seed=0)  # noqa: E731
    draw()  # a backend may compile first
    start = time.perf_counter()
    draw()
    return 1000 * (time.perf_counter() - start) / count


def draw_samples(model, images, path):
    """A picture of what `generate_rows` has made."""
    from examples.image_transformer import plots

    embedding = model.get_layer("embedding")
    count = embedding.classes or 10
    names = None if embedding.classes is None else [str(label) for label in range(count)]
    grid = images.reshape(count, -1, *images.shape[1:])
    plots.samples(grid, embedding.levels, path, names)


def sample(options):
    """The command with `--sample`."""
    import numpy as np

    import keras_sets  # noqa: F401, a file names its layers
    from examples.common import networks

    model = networks.load_model(options.sample, "argument --sample:")
    if "embedding" not in [layer.name for layer in model.layers]:
        raise common.RunError(f"argument --sample: {options.sample} holds no image transformer")
    folder = pathlib.Path(options.output or "runs/image_transformer/samples")
    try:
        images, rows = generate_rows(model, options, options.columns)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise common.RunError(str(error)) from error
    draw_samples(model, images, folder / "samples.png")
    np.savez_compressed(folder / "samples.npz", images=images, rows=rows)
    print(f"{len(images)} images are in {folder / 'samples.png'} and samples.npz")


def prepare(options):
    """The command with `--prepare-from`."""
    from examples.common.image_sets import DataError
    from examples.image_transformer import idx

    try:
        builder = idx.prepare(options.data_set, options.prepare_from, options.data_dir)
    except DataError as error:
        raise common.RunError(f"argument --prepare-from: {error}") from error
    print(f"{options.data_set} {builder.version} is in {builder.data_dir}")


def draw_completions(model, options, data, path, count=10, ways=3):
    """A picture of test images, whose upper half is given, completed in several ways."""
    import numpy as np

    from examples.image_transformer import plots
    from keras_sets import models

    images, labels = (array[:count] for array in data.test)
    given = images[:, : images.shape[1] // 2]
    completed = models.generate(
        model,
        ways * len(images),
        labels=np.tile(labels, ways) if options.conditional else None,
        temperature=options.temperature,
        top_k=options.top_k,
        seed=options.seed,
        prefix=np.tile(given, (ways, 1, 1, 1)),
    )
    completed = completed.reshape(ways, *images.shape)
    plots.completions(given, completed, images, data.levels, path)


@common.command
def main(arguments=None):
    options = parse(arguments)
    if options.sample is not None:
        return sample(options)
    if options.prepare_from is not None:
        return prepare(options)

    import keras
    import numpy as np

    from examples.common import networks
    from examples.common.image_sets import DataError
    from examples.common.run import Run
    from examples.common.training import Training
    from examples.image_transformer import data as images
    from examples.image_transformer import evaluate
    from examples.image_transformer import model as models
    from examples.image_transformer import plots
    from examples.image_transformer import references

    try:
        data = images.data_of(options)
    except DataError as error:
        raise common.RunError(str(error)) from error
    name, conditional = run_name(options), options.conditional
    model = networks.build_network(options, name, lambda: models.build(options, data))
    if options.dry_run:
        return
    run = Run("image_transformer", name, options)
    run.prepare()

    def draw():
        drawn, _ = generate_rows(model, options, options.columns)
        draw_samples(model, drawn, run.path / "samples.png")
        draw_completions(model, options, data, run.path / "completions.png")

    curves = {}

    def train(method, network, part, distortion=0.0, quiet=True):
        """Trains a network; returns its bits per dimension of every test image, and its cost."""
        keras.utils.set_random_seed(options.seed)
        models.compile_for_images(network, options)
        batches, validation = images.training_data(options, distortion)
        training = Training(part, network, batches, validation, draw, quiet)
        network.fit(
            training.batches,
            validation_data=training.validation,
            epochs=options.epochs,
            initial_epoch=training.initial_epoch,
            shuffle=False,  # the dataset shuffles, and Keras could not resume its own order
            verbose=0 if quiet else "auto",
            callbacks=training.callbacks,
        )
        training.finish()
        curves[method] = training.rows
        seen = training.steps * batches.batch_size
        cost = {
            "parameters": network.count_params(),
            "images": seen,
            "epoch_seconds": training.seconds * len(data.training[0]) / max(1, seen),
        }
        if references.streams(network):
            cost["drawing_milliseconds"] = drawing_milliseconds(network, options)
        return evaluate.network_bits(network, *data.test, conditional), cost

    results = {name: train(name, model, run, options.distortion, quiet=False)}
    for reference in options.references:
        network = references.build(reference, options, data, model.count_params())
        # Distorted images make the references worse.
        method = REFERENCES[reference]
        results[method] = train(method, network, run.part(reference))
    results["histogram of each pixel"] = evaluate.histogram(data, conditional), {}
    results["uniform"] = np.full(len(data.test[0]), np.log2(data.levels)), {}
    own = results[name][0]
    scores = [evaluate.score(method, bits, own, **cost) for method, (bits, cost) in results.items()]
    plots.comparison(curves, run.path / "comparison.png")
    kind = "conditional" if conditional else "unconditional"
    text = evaluate.table(options.data_set, kind, scores, len(data.test[0]))
    report = {"kind": kind, "scores": [vars(s) for s in scores]}
    if conditional:
        drawn = generate_rows(model, options, options.recognition_samples)
        report["recognised"] = evaluate.recognised(data, {"samples": drawn, "test": data.test})
        text += "\nrecognised by a classifier: {samples:.1%} of samples, {test:.1%} of test images"
        text = text.format(**report["recognised"])
    print(f"\n{text}")
    run.write_results(text, report)
    print(f"\nModel, metrics and pictures are in {run.path}")


if __name__ == "__main__":
    main()
