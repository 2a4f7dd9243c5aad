"""``fedmer fit``, ``validate`` and ``test``: Lightning's command line, with a help of our own."""

from collections.abc import Sequence

from fedmer.option_help import asked, help_text

COMMANDS = ("fit", "validate", "test")


def main(words: Sequence[str]) -> int:
    """Run one of :data:`COMMANDS`; returns the exit code.

    Args:
        words: For example ``["fit", "--aggregator", "FedProx"]`` or ``["fit", "--help", "data"]``.

    Raises:
        InputError: As of :func:`fedmer.cli.main`, or there is no such topic of help.
    """
    topic = asked(words[1:])
    if topic is None:
        from fedmer.cli import main as lightning

        return lightning(words)
    from fedmer.defaults import DEFAULTS
    from fedmer.sweep.check import fit_parser

    print(help_text(words[0], fit_parser(words[0]).options, DEFAULTS, topic))
    return 0
