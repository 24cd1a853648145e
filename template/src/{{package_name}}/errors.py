"""The two ways in which a command ends early. Each carries one sentence: what, where, what to do."""


class BadInput(Exception):
    """The command cannot start or go on with what it was given: exit code 2."""


class Refused(Exception):
    """A contract, a gate or a check said no, and a document says why: exit code 1."""
