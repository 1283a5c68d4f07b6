"""The pretend world: virtual time, network, disks, clocks, faults, clients and judges around the very engine that real nodes run.

One seed decides everything, so a failure is a number that anyone can replay. Nothing here is real: no clock, socket, disk or thread.
DESIGN.md says what is pretended how, and what a seed proves.
"""
