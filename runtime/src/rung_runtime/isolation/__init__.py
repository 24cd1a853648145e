"""Isolation: a package's code in a process that can only answer.

A model from the registry brings Python code along. Where it only has to predict, it does so in a
process of its own (`model.py`, `worker.py`, and `pipe.py` between them), with an environment that
holds no token (`environment.py`), and, on Linux, with no network and no files but its own
(`confinement.py`). Where a runner cannot confine it, the project's files are compared afterwards
(`project_files.py`).
"""
