"""Acoustic features of openSMILE."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmer.contracts.extractor import Extractor
from fedmer.data.media.clip import Clip
from fedmer.errors import InputError
from fedmer.plugins.extractors._needed import folder_of, needed
from fedmer.plugins.registry import unknown

IS10, SETS = "IS10", {"eGeMAPSv02": "eGeMAPSv02", "ComParE": "ComParE_2016"}
RATE = 16_000
_SHORTEST = 0.1
"""Seconds; the longest window is 60 ms, and functionals need several."""


class OpenSmile(Extractor):
    """Functionals of acoustic descriptors by openSMILE: IS10, eGeMAPSv02 or ComParE.

    ``IS10`` is the set of the INTERSPEECH 2010 Paralinguistic Challenge (Schuller et al., 2010),
    1582 numbers, which published IEMOCAP features are of. It is computed by the descriptors and
    functionals that openSMILE 2.1 and later ship for it, with jitter, shimmer and others mended, so
    that numbers differ from those of 2010. ``eGeMAPSv02`` (Eyben et al., 2016) has 88 numbers,
    ``ComParE`` (2016) 6373. Sound is resampled to 16 kHz. Nothing is learnt.

    The licence of openSMILE allows research and personal use; products need one of audEERING.

    Args:
        features: ``IS10``, ``eGeMAPSv02`` or ``ComParE``.
    """

    reads: ClassVar[str] = "audio"
    packages: ClassVar[Sequence[str]] = ("opensmile", "av")

    def __init__(self, features: str = IS10) -> None:
        if features not in (IS10, *SETS):
            raise InputError(unknown("feature set of OpenSmile", features, (IS10, *SETS)))
        module = needed("opensmile", "OpenSmile")
        self._folder = folder_of("opensmile", "OpenSmile", "") / "core" / "config"
        self._parts = {} if features != IS10 else self._parts_of_is10()
        self._smile: Any = (
            module.Smile(
                str(Path(__file__).with_name("is10.conf")),
                feature_level="func",
                options={option: str(file) for option, file in self._parts.items()},
            )
            if features == IS10
            else module.Smile(module.FeatureSet[SETS[features]])
        )

    def extract(self, clip: Clip) -> NDArray[np.float32]:
        samples = clip.samples(RATE)
        if len(samples) < _SHORTEST * RATE:
            raise InputError(
                f"it lasts {len(samples) / RATE:.3f} s; OpenSmile needs at least {_SHORTEST} s"
            )
        found = self._smile.process_signal(samples, RATE)
        return np.asarray(found.to_numpy()[0], dtype=np.float32)

    def model_files(self) -> Sequence[Path]:
        return [Path(self._smile.config_path), *self._parts.values()]

    def _parts_of_is10(self) -> dict[str, Path]:
        files = {
            "descriptors": "is09-13/IS10_paraling_core.lld.conf.inc",
            "functionals": "is09-13/IS10_paraling_core.func.conf.inc",
            "bufferModeConf": "shared/BufferMode.conf.inc",
            "bufferModeRbLagConf": "shared/BufferModeRbLag.conf.inc",
        }
        return {option: self._folder / file for option, file in files.items()}
