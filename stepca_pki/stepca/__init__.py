"""step-ca: finding or building the binary, its HTTP API, one-time tokens."""
