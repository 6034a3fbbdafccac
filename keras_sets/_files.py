"""Files that are written whole, and folders for them."""

import os
import pathlib
import tempfile


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes bytes or text so that `path` holds all of it or what it held before."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    if isinstance(content, str):
        content = content.encode()
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(argument: str, folder: str | os.PathLike[str]) -> None:
    """Makes a folder, where it is missing, and raises a ValueError if nothing can be written."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"Received an invalid value for `{argument}`, expected a folder that can be written. "
            f"Received: {argument}={str(folder)!r} ({error.strerror})"
        ) from error
