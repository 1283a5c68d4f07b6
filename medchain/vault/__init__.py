"""The vault: sealed blobs off the chain, wrapped keys, and ciphertext served to whom the rule allows. Knows no chain and no network."""
