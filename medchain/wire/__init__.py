"""What two processes must agree on byte for byte: peer messages, the one table of RPC methods, event topics. Knows no socket."""
