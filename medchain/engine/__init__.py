"""A whole node minus the world: one event in, one Ready out.

Mempool, admission, proposing, executing, agreement, gossip, catching up, release decisions, queries and recovery after a crash, driven
alike by the real runtime and by the simulator. Touches no clock, socket, disk or dice: it reads a key-value store handed in and returns
what to write.
"""
