"""The only room that touches cryptographic libraries: hashing, Merkle trees, signatures, sealing, streams, certificates, key files."""
