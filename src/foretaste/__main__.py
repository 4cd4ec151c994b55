"""``python -m foretaste`` is the command."""

from foretaste.cli.main import main

if __name__ == "__main__":
    main()
