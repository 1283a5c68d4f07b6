"""Measuring real networks: what they do under load while things break. Real processes, real sockets, real disks; no figure is simulated.

network.py has hands on a network's processes and lines, relay.py carries (or cuts) the bytes between hospitals, load.py is the work, in a
process of its own, watch.py sees when blocks are decided, faults.py says what is broken and how long, report.py makes the page.
"""
