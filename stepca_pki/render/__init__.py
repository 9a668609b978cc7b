"""Model to text: ca.json and the packaged templates. Pure."""
