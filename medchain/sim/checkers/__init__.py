"""The judges: each looks at one promise of the protocol, from outside, and knows nothing of how the engine keeps it.

They see what leaves a node (turns: what became durable, what was sent and answered) and, at the end, what its store holds.
"""
