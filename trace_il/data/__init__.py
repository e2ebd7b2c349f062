"""Datasets on disk and in batches."""
