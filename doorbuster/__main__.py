"""python -m doorbuster is the command."""

from doorbuster.cli import main

main()
