"""One file a provisioner type: its model, its JSON, what it asks. Pure."""
