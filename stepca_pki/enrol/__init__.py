"""What leaf systems need: trust stores, web servers, ACME clients."""
