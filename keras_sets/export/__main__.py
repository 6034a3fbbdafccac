"""Command line of `keras_sets.export`."""

import argparse
import importlib

from keras_sets.export.formats import FORMATS
from keras_sets.export.formats import export_model


def make_parser():
    parser = argparse.ArgumentParser(
        prog="python -m keras_sets.export",
        description="Writes a trained model in a format that other programs serve, without Keras "
        "and this package. KERAS_BACKEND chooses the backend to export from.",
    )
    parser.add_argument("model", metavar="MODEL", help="a .keras file, saved on any backend")
    parser.add_argument(
        "--format", choices=list(FORMATS), default="tf_saved_model", help="default: %(default)s"
    )
    parser.add_argument(
        "--output", metavar="FOLDER", required=True, help="folder to write, new or empty"
    )
    parser.add_argument(
        "--batch-size", metavar="SETS", type=int, help="the one batch size to serve; default: any"
    )
    parser.add_argument(
        "--set-size", metavar="ENTITIES", type=int, help="the one set size to serve; default: any"
    )
    parser.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="module that defines layers of the model, where they are not of keras_sets; may be "
        "given several times",
    )
    return parser


def main(arguments=None):
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        for module in options.modules:
            importlib.import_module(module)
        path = export_model(
            options.model,
            options.output,
            format=options.format,
            batch_size=options.batch_size,
            set_size=options.set_size,
        )
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    print(path)


if __name__ == "__main__":
    main()
