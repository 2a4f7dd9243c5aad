"""Folders of published corpora as their makers release them: recordings, words and labels."""
