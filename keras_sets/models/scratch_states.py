import pathlib
import shutil
import tempfile
import weakref

import numpy as np
from keras import ops

from keras_sets import ops as set_ops


class ScratchStates:
    """Hidden states of the `Swarm` layers of a network, chunk by chunk, in files.

    The files are memory maps, written anew in every pass. They are removed with this object.

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
        # What the files hold, by chunk and layer call: iterations, poolings asked, dtype.
        self._facts = {}

    def read(self, key):
        """`(iterations, poolings, h, c)` as they were written, or None."""
        if key not in self._facts:
            return None
        *facts, dtype = self._facts[key]
        states = np.load(self._path(key), mmap_mode="r")
        return *facts, *(ops.cast(ops.convert_to_tensor(np.array(s)), dtype) for s in states)

    def write(self, key, iterations, poolings, h, c):
        """Replaces what was there."""
        # NumPy files know no bfloat16.
        wide = set_ops.accumulation_dtype(h)
        arrays = [ops.convert_to_numpy(ops.cast(state, wide)) for state in (h, c)]
        mode, shape = ("r+", None) if key in self._facts else ("w+", (2, *arrays[0].shape))
        file = np.lib.format.open_memmap(self._path(key), mode, arrays[0].dtype, shape)
        file[0], file[1] = arrays
        self._facts[key] = iterations, poolings, h.dtype

    def _path(self, key):
        return self._folder / ("-".join(map(str, key)) + ".npy")
