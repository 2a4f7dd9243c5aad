"""Tables with a row an utterance: CSV, TSV, JSON Lines, Parquet, and Hugging Face ``datasets``."""
