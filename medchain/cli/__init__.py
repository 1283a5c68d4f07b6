"""The `medchain` command: main.py and one file a noun. Each noun offers `configure(parser)` and `run(arguments) -> exit code`.

Stands on top of the house: it may import every room, nobody imports it.
"""
