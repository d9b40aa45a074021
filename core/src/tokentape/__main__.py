"""`python -m tokentape`: the same as the command `tokentape`."""

from .cli import main

main()
