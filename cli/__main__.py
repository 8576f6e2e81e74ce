"""`python -m cli` is what `./hune` runs."""

from cli.main import main

main()
