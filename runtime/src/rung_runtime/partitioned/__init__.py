"""Sources of many partitions: validated, and turned into features, by an engine.

The pipeline of `ml run` holds its rows in memory; what is here holds a batch of a partition.
"""
