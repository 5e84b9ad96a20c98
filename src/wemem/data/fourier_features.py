"""Random Fourier features of records with few features, for models that are linear in them.

A linear model of a few numbers knows only what lies on either side of a plane. Beside the features
themselves, it gets cosines of random sums of them (Rahimi & Recht, "Random features for large-scale
kernel machines", NIPS 2007), by which it comes close to a kernel machine with a Gaussian kernel.
The directions and phases are fixed before any record is seen. Of the training records the features
depend on the mean and the deviation of each column alone.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Real

#: Number of cosines.
COSINES = 512
#: Standard deviation of the sum in a cosine, in radians, for a record drawn at random.
SPREAD = 0.5
#: Deviation of the features beside the cosines, so that principal components hold them first.
FEATURES_FIRST = 10.0


@dataclass(frozen=True, eq=False)
class FourierFeatures:
    """Features of records beside cosines of random sums of them.

    Args:
        mean: mean of each of the F columns.
        scale: standard deviation of each column; infinite for a constant one, which counts as 0.
    """

    mean: Float64[np.ndarray, " F"]
    scale: Float64[np.ndarray, " F"]

    @classmethod
    def fit(cls, features: Real[np.ndarray, "n ..."]) -> "FourierFeatures":
        """Means and deviations of some records.

        >>> x = np.array([[0.0, 3.0], [2.0, 3.0]])
        >>> FourierFeatures.fit(x).apply(x).round(1)[:, :2]
        array([[-7.1,  0. ],
               [ 7.1,  0. ]])
        """
        x = features.reshape(len(features), -1).astype(np.float64)
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        # rounding leaves a constant column a deviation of about 1e-16 of its size
        return cls(mean, np.where(deviation > 1e-9 * np.abs(mean), deviation, np.inf))

    def apply(self, features: Real[np.ndarray, "n ..."]) -> Float64[np.ndarray, "n G"]:
        """The F features of each record, standardized, and then its cosines."""
        count = len(self.mean)
        rng = np.random.default_rng(0)
        directions = rng.standard_normal((count, COSINES)) * SPREAD
        phases = rng.random(COSINES) * 2 * np.pi
        z = (features.reshape(len(features), -1) - self.mean) / self.scale / np.sqrt(count)
        return np.concatenate([FEATURES_FIRST * z, np.cos(z @ directions + phases) / np.sqrt(COSINES)], axis=1)
