"""Peers over HTTP: one WebSocket per pair of hospitals, mutual TLS with pinned certificates, bulk transfers beside it.

Carries events and envelopes of the engine (engine/ready.py) and knows none of their rules; protocol.md, "Gossip, over HTTP".
"""
