"""Losses for predictions about sets, and between sets."""

from keras_sets.losses.chamfer import Chamfer
from keras_sets.losses.earth_mover import EarthMover
from keras_sets.losses.gaussian_mixture_loss import GaussianMixtureLoss
from keras_sets.losses.matched_crossentropy import MatchedCrossentropy
from keras_sets.losses.matched_loss import MatchedLoss
from keras_sets.losses.sinkhorn_divergence import SinkhornDivergence

__all__ = [
    "Chamfer",
    "EarthMover",
    "GaussianMixtureLoss",
    "MatchedCrossentropy",
    "MatchedLoss",
    "SinkhornDivergence",
]
