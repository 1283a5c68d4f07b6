"""The protocol explored exhaustively: real replicas, every order of events within stated bounds (sim/DESIGN.md, "The explorer").

Knows consensus and the chain's nouns; no engine, no clock, no dice. Seeds sample long histories of whole nodes; this looks at every short
history of agreement alone.
"""
