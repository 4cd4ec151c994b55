"""PFedRec: the score function is a user's own, item vectors are learnt together.

Zhang et al., "Dual Personalization on Federated Recommendation" (IJCAI 2023): a client first fits
its score function (one affine layer and a sigmoid) to the item vectors that came down, then changes
the item vectors with it; only these go up. As in the official code a client is a user, and the
score function is taken out of what is sent - here it is not among what may be sent at all.

Left out: the paper scores with item vectors that a client has trained once more for itself. Our
client answers with the common ones and its own score function.
"""

from __future__ import annotations

import numpy as np

from foretaste.federated.core.boundary import Arrays
from foretaste.federated.core.table_config import FedMFConfig
from foretaste.federated.fedmf import HEAD, FedMF


class PFedRecConfig(FedMFConfig):
    """Of PFedRec."""


class PFedRec(FedMF):
    """Score = affine function of the item's vector, fitted on the device before the items."""

    name = "pfedrec"
    Config = PFedRecConfig
    alternates = True
    constant = 1

    def first_personal(self, draws: np.ndarray) -> Arrays:
        """The same score function for all, so that item vectors begin along one direction.

        Along it they soon hold what is common to all, popularity; heads then turn away from it.
        """
        head = np.zeros((len(draws), self.dim + 1), np.float32)
        head[:, : self.dim] = self.dim**-0.5
        return {HEAD: head}
