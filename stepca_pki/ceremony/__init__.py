"""What the root does: its register, and its signatures."""
