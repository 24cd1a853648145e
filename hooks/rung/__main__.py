"""`python -m rung`."""

from .cli import main

main()
