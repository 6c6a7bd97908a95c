"""`python -m pansharpen_cli`: the program, also where torchrun wants a module."""

from pansharpen_cli.cli.app import main

if __name__ == "__main__":  # the workers of a batch import it too
    main()
