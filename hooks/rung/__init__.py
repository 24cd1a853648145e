"""Rung: start, adopt, update and climb, with nothing lost. `rung --help` lists the commands."""


class BadInputError(Exception):
    """What was asked for cannot be done: one sentence says what, where, and what to do. Exit 2."""


class RefusedError(Exception):
    """A check said no, and has said why. Exit 1."""
