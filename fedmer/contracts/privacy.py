"""The contract of a protection of what clients send."""


class Privacy:
    """What is done so that less of a client can be seen in what it sends.

    A protection says what it wants as plain attributes, and an executor that can give it does so:
    one in which a single process trains all clients has nobody to hide an update from, and refuses
    in :meth:`~fedmer.contracts.executor.Executor.protect`.
    """
