"""The contract of what makes features out of words and recordings."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmer.data.media.clip import Clip


class Extractor(ABC):
    """Makes one row of features for one utterance, whatever other utterances there are.

    An extractor is frozen: it has learnt nothing from the corpus that it is used on. It is a pure
    function of the clip, so that the same clip gives the same row in any process and any order.
    Options are arguments of ``__init__``, which also loads models, so that what is missing is said
    before anything is extracted.
    """

    reads: ClassVar[str]
    """What it makes features of: ``text``, ``audio`` or ``video``."""

    packages: ClassVar[Sequence[str]] = ()
    """Distributions whose versions decide what the features are; recorded with them."""

    @abstractmethod
    def extract(self, clip: Clip) -> NDArray[np.float32]:
        """The features of one utterance.

        Args:
            clip: Its words and recordings, read when they are asked for.

        Returns:
            ``(D,)`` finite numbers, the same ``D`` for every clip.

        Raises:
            InputError: This clip has none, such as a silent one; the sentence says why. It then
                counts as a missing modality.
        """

    def model_files(self) -> Sequence[Path]:
        """Files of weights and settings whose bytes decide what the features are."""
        return ()
