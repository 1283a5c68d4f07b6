"""Mutants: the node with one of its own rules dropped, and the question which judge sees it. A judge that sees nothing judges nothing.

Nothing here runs in a node or in a seed, unless it is asked for by name. The one room that reaches into other rooms' private parts, because
a rule that could be switched off in public would be one that somebody switches off.
"""
