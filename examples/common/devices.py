"""Training on several devices: every device takes a share of the sets of each batch."""

import keras
import numpy as np

from examples.common.options import RunError


def distribute(count):
    """Makes the networks built from now on train on so many devices.

    On JAX the devices are the first ones that JAX lists. On TensorFlow they are the first
    graphics cards, or, on a machine without any, so many virtual devices of its processor.

    Raises:
        RunError: The backend cannot do that, or has fewer.
    """
    if count == 1:
        return
    backend = keras.config.backend()
    if backend == "jax":
        found = keras.distribution.list_devices()
        advice = (
            ". Virtual ones, for a trial on processors: JAX_PLATFORMS=cpu "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count}"
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
        data_parallel = keras.distribution.DataParallel(devices=found[:count])
        keras.distribution.set_distribution(data_parallel)
    else:
        import tensorflow as tf

        tf.distribute.experimental_set_strategy(tf.distribute.MirroredStrategy(found[:count]))


def _tensorflow_devices(count):
    import tensorflow as tf

    cards = tf.config.list_physical_devices("GPU")
    if not cards:
        processor = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
        tf.config.set_logical_device_configuration(processor, parts)
        return [f"CPU:{i}" for i in range(count)]
    return [f"GPU:{i}" for i in range(len(cards))]


class DivisibleBatches(keras.utils.PyDataset):
    """The batches of another dataset, filled up to a multiple of the number of devices.

    A batch that is too short repeats its first set. The repetitions have sample weight 0,
    and the weights of the others make up for them in a mean over the batch, so the loss and
    its gradient are those of the batch as it was. (In the mean over an epoch the batch
    counts as if it were full.) Metrics have to be `weighted_metrics`.

    Masks become int8: TensorFlow averages the first batch over the devices, and there is no
    mean of bools.

    Args:
        data: Dataset of `(inputs, targets)`, NumPy arrays or dicts of them.
        devices: Positive integer.
    """

    def __init__(self, data, devices, **kwargs):
        super().__init__(**kwargs)
        self.data = data
        self.devices = devices

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        batch = self.data[index]
        sets = len(keras.tree.flatten(batch)[0])
        filled = -(-sets // self.devices) * self.devices
        real = np.arange(filled) < sets
        rows = np.where(real, np.arange(filled), 0)

        def fill(array):
            array = array[rows]
            return array.astype("int8") if array.dtype == bool else array

        inputs, targets = keras.tree.map_structure(fill, batch)
        return inputs, targets, np.where(real, filled / sets, 0).astype("float32")

    def start_at(self, epoch):
        self.data.start_at(epoch)

    def on_epoch_end(self):
        self.data.on_epoch_end()
