"""Conversations: in memory, on disk, made up, in batches, and split over clients."""
