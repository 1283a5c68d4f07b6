"""medchain: hospitals share patients' records over a permissioned chain that nobody in the middle can read, alter, deny or forget.

The layout and the law that holds it together are described in README.md: a room imports only from floors below it, and everything below the
I/O line is pure (no clock, socket, disk, environment or dice).
"""

__version__ = "0.1.0"
