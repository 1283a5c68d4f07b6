"""What a client or a custodian does, pure: build payloads, seal, sign with a given key.

Knows no socket, file or clock; randomness is handed in.
"""
