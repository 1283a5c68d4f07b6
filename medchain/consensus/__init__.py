"""PBFT as a pure state machine: one instance per height, views within a height. See DESIGN.md for the safety and liveness arguments.

The room knows votes, views and timers. It does not know what a block means (the engine executes it and answers), where anything is stored
(it returns records that must be durable before what follows them is sent) or what time it is (ticks are handed in).
"""
