"""Measuring: single costs, real networks under load, and under load while things break. No figure is simulated.

Networks: network.py has hands on a network's processes and lines, relay.py carries (or cuts) the bytes between hospitals, load.py is the
work, in a process of its own, watch.py sees when blocks are decided, faults.py says what is broken and how long, page.py makes the page of
faults. Results: results.py is their form, table.py shows one, compare.py judges two (interval.py has the statistics), report.py makes a
page of them with the plots of plots.py.
"""
