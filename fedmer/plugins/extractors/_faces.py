"""The largest face of a picture."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.errors import InputError
from fedmer.plugins.extractors._needed import needed

HOW = "pip install 'opencv-python-headless<5', since later ones come without a face detector"
_CASCADE = "haarcascade_frontalface_default.xml"
_SMALLEST = 1 / 10
"""Of the shorter side of a picture; what is smaller is no face that somebody filmed."""
_AROUND = 0.1
"""Of a face's side that is kept around it."""


class FaceFinder:
    """Frontal faces by boosted cascades (Viola and Jones, 2001), as OpenCV 4 ships them.

    Args:
        who: The extractor, for sentences.
    """

    def __init__(self, who: str) -> None:
        self._cv2: Any = needed("cv2", who)
        self.file = Path(self._cv2.__file__).parent / "data" / _CASCADE
        if not self.file.is_file() or not hasattr(self._cv2, "CascadeClassifier"):
            raise InputError(f"{who} finds no face detector in OpenCV; {HOW}.")
        self._cascade = self._cv2.CascadeClassifier(str(self.file))

    def largest(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The square around the largest face, None where there is none.

        Args:
            picture: ``(height, width, 3)``.
        """
        height, width, _ = picture.shape
        smallest = max(24, round(_SMALLEST * min(height, width)))
        grey = self._cv2.equalizeHist(self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2GRAY))
        found = self._cascade.detectMultiScale(
            grey, scaleFactor=1.1, minNeighbors=5, minSize=(smallest, smallest)
        )
        if not len(found):
            return None
        # The first by place among equals, so that the answer is one.
        x, y, side, _ = max((tuple(map(int, f)) for f in found), key=lambda f: (f[2], -f[0], -f[1]))
        edge = round(_AROUND * side)
        return picture[max(0, y - edge) : y + side + edge, max(0, x - edge) : x + side + edge]
