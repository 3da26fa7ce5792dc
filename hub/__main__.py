"""`python -m hub`: the command line."""

from .cli.main import script

if __name__ == "__main__":
    script()
