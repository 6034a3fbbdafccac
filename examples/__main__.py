"""Lists the examples: `python -m examples`."""

import importlib
import pkgutil

import examples


def main():
    print("The examples, each with --help and --smoke:\n")
    for module in pkgutil.iter_modules(examples.__path__):
        if module.ispkg and module.name != "common":
            text = importlib.import_module(f"examples.{module.name}").__doc__
            print(f"python -m examples.{module.name:26}  {text.strip().splitlines()[0]}")


if __name__ == "__main__":
    main()
