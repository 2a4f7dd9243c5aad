"""A rule, a network, a split and a privacy mechanism, each one class in a file of its own."""
