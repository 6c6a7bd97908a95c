"""`python -m pansharpen_cli`: the program, also where torchrun wants a module."""

from pansharpen_cli.cli.app import main

main()
