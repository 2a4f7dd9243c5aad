"""What makes features out of words and recordings, one file an extractor."""
