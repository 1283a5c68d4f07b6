"""The store room: what a node keeps, in what order, and how it proves a piece of it.

Key-value protocol and its implementers, the layout of the one database, the authenticated state tree with proofs, the overlay a block
executes on, the archive of blocks and the history of headers. The room deals in bytes: it knows no rule of the chain. DESIGN.md holds the
decisions.
"""
