"""The optimizers of the examples."""

import keras


def make_optimizer(options, accumulate=1):
    """The optimizer of the options, with gradients clipped to norm 1.

    With `accumulate` above 1 it steps once in so many batches, by the mean of their gradients.
    """
    parts = {"clipnorm": 1.0, "weight_decay": options.weight_decay}
    if accumulate > 1:
        parts["gradient_accumulation_steps"] = accumulate
    if options.optimizer == "adam":
        return keras.optimizers.Adam(options.learning_rate, **parts)
    # Matrices between hidden states get Muon's steps; the first and the last layer Adam's.
    return keras.optimizers.Muon(
        options.learning_rate,
        adam_weight_decay=options.weight_decay,
        adam_lr_ratio=0.5,
        exclude_layers=[
            "cell/kernel$",
            "projection",
            "output",
            "embedding",
            "equivariant_0",
            "initial_",
            "readout",
        ],
        **parts,
    )
