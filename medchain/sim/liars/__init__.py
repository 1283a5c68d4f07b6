"""Liars: engines that break the rules on purpose, up to f of them in a world; the honest must neither part nor stop for them.

Each wraps the real engine and spoils what it says, so that its lies are as plausible as lies get, and one liar may wrap another. They know
the messages, not the inside of the engine.
"""
