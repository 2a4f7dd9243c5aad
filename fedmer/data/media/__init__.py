"""Recordings: samples and frames of files that PyAV reads, cut at exact times."""
