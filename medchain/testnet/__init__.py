"""A network of hospitals on one machine, for trying out, demonstrating and testing: plan.py makes its files, launch.py runs its processes.

Its nodes are real ones, started by the same command as anywhere else; only that one operator holds all keys is pretended.
"""
