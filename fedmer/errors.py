"""The one exception that means: the person who typed this can mend it."""


class InputError(ValueError):
    """Something a user gave cannot be used.

    The message is a sentence: what was given, what was expected, what to do. The command line
    prints it without a traceback and exits with code 2.
    """
