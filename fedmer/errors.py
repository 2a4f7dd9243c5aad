"""The exception that means: the person who typed this can mend it."""


class InputError(ValueError):
    """Something a user gave cannot be used.

    The message is a sentence: what was given, what was expected, what to do. The command line
    prints it without a traceback and exits with code 2.
    """


class NotFiniteError(InputError):
    """What a client computed is NaN or infinite, so that it has no part in the round.

    The message says what, as in "its loss is nan"; whose it is, is known to whoever catches it.
    """
