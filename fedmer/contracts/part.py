"""What all that can be chosen has in common: it remembers the arguments that it was made with.

So a rule that was made in Python can be written into a run's configuration as one that was typed.
"""

import inspect
from abc import ABCMeta
from functools import partial
from typing import Any


class PartType(ABCMeta):
    """The class of the classes that can be chosen.

    What they make has an attribute ``given``: the arguments that it was made with, by name.
    """

    def __call__(cls, *args: Any, **options: Any) -> Any:
        made = super().__call__(*args, **options)
        bound = cls.__signature__.bind(*args, **options).arguments
        # By object, since some parts are frozen.
        object.__setattr__(made, "given", bound)
        return made

    @property
    def __signature__(cls) -> inspect.Signature:
        """What ``inspect.signature`` would find if the classes were of the usual kind."""
        if cls.__init__ is object.__init__:  # type: ignore[misc]
            return inspect.Signature()
        _, *parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
        return inspect.Signature(parameters)


class NetworkType(PartType):
    """The class of networks, which know the sizes of a corpus only once there is one.

    Called without a shape, a network's class gives what makes such a network of a shape.
    """

    def __call__(cls, *args: Any, **options: Any) -> Any:
        if args or "shape" in options:
            return super().__call__(*args, **options)
        cls.__signature__.bind_partial(**options)
        return partial(cls, **options)
