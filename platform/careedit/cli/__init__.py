"""The command line: `main` finds the sub-commands, each of them a module of its own."""
