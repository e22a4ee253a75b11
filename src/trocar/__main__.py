"""`python -m trocar` is the `trocar` command."""

from trocar.cli import main

main()
