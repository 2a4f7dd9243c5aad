"""A network, a split and a privacy mechanism, each one class."""
