"""Ours: the steps from raw file to packaged model, one module each."""
