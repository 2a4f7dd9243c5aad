"""A first model: dialogues that fedmer makes up, learnt in about a minute."""
