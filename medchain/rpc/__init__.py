"""Clients over HTTP on loopback: JSON-RPC 2.0, health, and the routes it is handed.

Knows the table of methods (wire/methods.py), bounds whatever a client sends and turns typed errors into answers. What a method does is
handed in as one function; this room knows no engine, no vault and no chain.
"""
