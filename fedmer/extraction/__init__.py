"""From recordings and words to a corpus of features."""
