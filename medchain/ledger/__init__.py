"""The rule book: who may write what into the shared state, and what each node answers to a request for access.

One file a subject, payloads and rules together; `kinds` is the one table kind → handler, `apply` executes a block, `queries` reads for
people. The room is pure: a block, a state and a time go in, receipts and changes come out, the same on every node. DESIGN.md says why
it is cut so.
"""
