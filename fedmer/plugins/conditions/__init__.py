"""What is wrong with some clients of a simulation, one file a condition."""
