"""Training on several devices: every device takes a share of the sets of each batch.

The devices are those of one process or of several. All processes do the same, pictures and
evaluation included: whatever JAX places on all devices needs all processes. Process 0 alone
prints and writes the run's folder.
"""

import math
import os
import sys
import zlib

import keras
import numpy as np

from examples.common import options as common_options
from examples.common.options import RunError
from examples.common.options import process_count
from examples.common.options import process_index

# Folders may differ from machine to machine; the names that are free have no order.
NOT_COMPARED = ("output", "data_dir", "free")


def distribute(count):
    """Makes the networks built from now on train on so many devices, with `Sharing`.

    On JAX the devices are the first ones that JAX lists, of every process equally many. On
    TensorFlow they are the first graphics cards, or, on a machine without any, so many virtual
    devices of its processor.

    Raises:
        RunError: The backend cannot do that, or has fewer.
    """
    backend = keras.config.backend()
    processes = process_count()
    if processes > 1:
        _join(backend, count)
    if backend == "jax":
        found = _jax_devices(count // processes)
        advice = (
            ". Virtual ones, for a trial on processors: JAX_PLATFORMS=cpu "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count // processes}"
        )
    elif backend == "tensorflow":
        found, advice = _tensorflow_devices(count), ""
    else:
        raise RunError(
            f"argument --devices: {count} devices need JAX or TensorFlow, received the backend "
            f"{backend}. There, wrap the model in torch.nn.parallel.DistributedDataParallel and "
            "write the training loop yourself"
        )
    if len(found) < count:
        raise RunError(
            f"argument --devices: expected at most {len(found)}, the devices that {backend} has "
            f"({', '.join(found)}), received {count}{advice}"
        )
    if backend == "jax":
        # Every process brings its own share, see `DivisibleBatches`.
        shared = SharedInTraining(devices=found[:count], auto_shard_dataset=False)
        keras.distribution.set_distribution(shared)
    else:
        import tensorflow as tf

        tf.distribute.experimental_set_strategy(tf.distribute.MirroredStrategy(found[:count]))


def _join(backend, count):
    """Makes this process one of several; all but process 0 fall silent."""
    processes = process_count()
    if backend != "jax":
        raise RunError(
            f"KERAS_DISTRIBUTION_NUM_PROCESSES: {processes} processes need JAX, received the "
            f"backend {backend}"
        )
    for name in ("KERAS_DISTRIBUTION_JOB_ADDRESSES", "KERAS_DISTRIBUTION_PROCESS_ID"):
        if not os.environ.get(name):
            raise RunError(f"{name} has to be set for each of {processes} processes")
    if process_index() >= processes:
        raise RunError(
            f"KERAS_DISTRIBUTION_PROCESS_ID: expected a number below {processes}, received "
            f"{process_index()}"
        )
    if count % processes:
        raise RunError(
            f"argument --devices: expected a multiple of the {processes} processes, received "
            f"{count}"
        )
    import jax

    if jax.__version_info__ < (0, 6, 2):  # later ones do so by default
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize()
    common_options.joined = True
    if process_index() > 0:
        sys.stdout = open(os.devnull, "w")


def _jax_devices(count):
    """Names of so many devices of every process, fewer where there are fewer."""
    import jax

    own = [[] for _ in range(jax.process_count())]
    for device in jax.devices():
        own[device.process_index].append(f"{device.platform}:{device.id}")
    if len(own) == 1:
        return own[0]
    return [name for names in own for name in names[:count]]


def gather(number):
    """That number of every process; all of them have to call this."""
    if process_count() == 1:
        return [number]
    from jax.experimental import multihost_utils

    kind = "int32" if isinstance(number, int) else "float32"
    return multihost_utils.process_allgather(np.array(number, kind)).tolist()


def compare(options):
    """Raises RunError in all processes unless they have the same options, but for folders."""
    compared = {key: value for key, value in vars(options).items() if key not in NOT_COMPARED}
    own = zlib.crc32(repr(sorted(compared.items())).encode()) // 2
    if set(gather(own)) != {own}:
        raise RunError("The processes have different options")


def check(network):
    """Raises RunError where a network would train otherwise than on one device."""
    normalized = [
        layer.name
        for layer in network._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if normalized and keras.config.backend() == "tensorflow":
        raise RunError(
            f"argument --devices: {network.name} needs JAX: on TensorFlow every device would take "
            f"the mean and variance of its own sets for batch normalization, {normalized[0]}"
        )


def predict_once(model, inputs):
    """`model.predict_on_batch`, which on TensorFlow answers once on every device."""
    outputs = model.predict_on_batch(inputs)
    return outputs[: _sets(inputs)]


def _tensorflow_devices(count):
    import tensorflow as tf

    cards = tf.config.list_physical_devices("GPU")
    if not cards:
        processor = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
        tf.config.set_logical_device_configuration(processor, parts)
        return [f"CPU:{i}" for i in range(count)]
    return [f"GPU:{i}" for i in range(len(cards))]


class SharedInTraining(keras.distribution.DataParallel):
    """Shares the sets of a batch among the devices during training, see `Sharing`.

    At other times every device computes on all sets, so that any number of them will do.
    """

    sharing = False

    def get_data_layout(self, data_shape):
        if self.sharing:
            return super().get_data_layout(data_shape)
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)


class Sharing(keras.callbacks.Callback):
    """Shares the batches of every epoch, those that validate as well, after `distribute`."""

    def on_epoch_begin(self, epoch, logs=None):
        self._set(True)

    def on_epoch_end(self, epoch, logs=None):
        self._set(False)

    def _set(self, sharing):
        distribution = keras.distribution.distribution()
        if distribution is not None:  # TensorFlow has a strategy instead
            distribution.sharing = sharing


class DivisibleBatches(keras.utils.PyDataset):
    """The batches of another dataset, with a number of sets that the devices divide.

    Each of several processes makes the whole batch and keeps its own share.

    A batch that they do not divide is repeated as a whole. All means over the batch remain
    what they are: those of losses and metrics, with or without sample weights, and those of
    batch normalization.

    Masks become int8: TensorFlow averages the first batch over the devices, and there is no
    mean of bools.

    Args:
        data: Dataset of tuples of NumPy arrays, or of dicts of them.
        devices: Positive integer.
        repeats: How often every batch is repeated, see `repeats_of_all`. None: as often as that
            batch has to be. Then it counts as often in the mean over an epoch.
    """

    def __init__(self, data, devices, repeats=None, **kwargs):
        super().__init__(**kwargs)
        self.data = data
        self.devices = devices
        self.repeats = repeats

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        batch = self.data[index]
        repeats = self.repeats or _repeats(self.devices, _sets(batch))
        share = repeats * _sets(batch) // process_count()
        own = slice(process_index() * share, (process_index() + 1) * share)

        def repeat(array):
            array = np.concatenate([array] * repeats)[own]
            return array.astype("int8") if array.dtype == bool else array

        return keras.tree.map_structure(repeat, batch)

    def start_at(self, epoch):
        self.data.start_at(epoch)

    def on_epoch_end(self):
        self.data.on_epoch_end()


def repeats_of_all(model, data, devices):
    """How often all batches have to be repeated for the loss over an epoch to stay what it is.

    Args:
        model: The compiled model.
        data: Dataset of the same batches in every epoch.
        devices: Positive integer.
    """
    divides = getattr(model.loss, "reduction", None) == "mean_with_sample_weight"
    if divides and keras.config.backend() == "tensorflow":
        # Every device divides by the weights that it sees, and so has to see all of them.
        return devices
    return _repeats(devices, math.gcd(*(_sets(data[index]) for index in range(len(data)))))


def _repeats(devices, sets):
    return devices // math.gcd(devices, sets)


def _sets(batch):
    return len(keras.tree.flatten(batch)[0])
