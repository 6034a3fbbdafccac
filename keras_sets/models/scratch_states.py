import pathlib
import shutil
import tempfile
import weakref

import numpy as np
from keras import ops

from keras_sets import ops as set_ops


class ScratchStates:
    """Hidden states of the `Swarm` layers of a network, chunk by chunk, in files.

    The files are written anew in every pass, and removed with this object. They are read and
    written whole: memory maps fault on every page, which takes twice the time.

    Args:
        folder: Folder that exists, to make a folder of its own in.

    Raises:
        ValueError: If nothing can be written there.
    """

    def __init__(self, folder):
        try:
            self._folder = pathlib.Path(tempfile.mkdtemp(prefix="states-", dir=folder))
        except OSError as error:
            raise ValueError(
                "Received an invalid value for `scratch_dir`, expected a folder that exists and "
                f"can be written. Received: scratch_dir={str(folder)!r} ({error.strerror})"
            ) from error
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        # What the files hold, by chunk and layer call: iterations, poolings asked, dtype of the
        # states, dtype and shape of the numbers in the file.
        self._facts = {}

    def read(self, key):
        """`(iterations, poolings, h, c)` as they were written, or None."""
        if key not in self._facts:
            return None
        *facts, dtype, stored, shape = self._facts[key]
        states = np.fromfile(self._path(key), stored).reshape(2, *shape)
        return *facts, *(ops.cast(ops.convert_to_tensor(state), dtype) for state in states)

    def write(self, key, iterations, poolings, h, c):
        """Replaces what was there."""
        # NumPy files know no bfloat16.
        wide = set_ops.accumulation_dtype(h)
        arrays = [ops.convert_to_numpy(ops.cast(state, wide)) for state in (h, c)]
        # Over what is there: a file that grows anew has to find its blocks again.
        with open(self._path(key), "r+b" if key in self._facts else "wb") as file:
            for array in arrays:  # `tofile` of NumPy says of a full disk only how much it wrote
                file.write(np.ascontiguousarray(array))
        self._facts[key] = iterations, poolings, h.dtype, arrays[0].dtype, arrays[0].shape

    def _path(self, key):
        return self._folder / ("-".join(map(str, key)) + ".states")
