"""The SDK: a connection to a node, a wallet, the stories of a record, and proofs checked without trusting any node.

Stories (people, records, consents, access) put the pure actions, a key and a node together. What a node says is believed only where it does
not matter; what matters is proven under a certificate with the genesis document. Knows no engine, no vault and no terminal.
"""
