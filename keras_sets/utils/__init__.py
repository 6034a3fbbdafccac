"""From sets of different sizes to batches: padding, datasets, data frames; and memory.

What handles sets is NumPy: arrays in, arrays out.
"""

from keras_sets.utils.keep_memory import keep_memory
from keras_sets.utils.pad_sets import pad_sets
from keras_sets.utils.set_dataset import SetDataset
from keras_sets.utils.sets_from_dataframe import sets_from_dataframe

__all__ = ["SetDataset", "keep_memory", "pad_sets", "sets_from_dataframe"]
