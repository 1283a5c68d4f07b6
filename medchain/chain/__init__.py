"""The nouns every node agrees on byte for byte: transactions, blocks, votes, certificates, validators, parameters, genesis.

Each noun is a frozen value with one encoding, a decoder that refuses every other byte string, and the digests other nouns refer to it by.
The room knows no rule about who may do what (ledger), no vote counting (consensus) and no storage.
"""
