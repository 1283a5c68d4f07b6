"""The real world around one engine: configuration, clock, the loop, the desk for local clients, the custodian, and the wiring.

`assemble.py` is the only module that knows every adapter. Nothing here decides what is true on the chain.
"""
