"""What a person declares: the model of pki.yaml, its loader and its editor."""
