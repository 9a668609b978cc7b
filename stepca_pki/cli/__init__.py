"""The command: parse, call, print. One file a noun."""
