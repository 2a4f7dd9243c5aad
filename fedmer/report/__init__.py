"""What a person sees of a run, during and after it."""
