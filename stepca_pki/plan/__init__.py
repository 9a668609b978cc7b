"""Steps, and the decision which are needed. Pure."""
