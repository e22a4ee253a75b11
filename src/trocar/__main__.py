"""`python -m trocar` is the `trocar` command."""

from trocar.cli import main

if __name__ == "__main__":  # processes that score import this module again
    main()
