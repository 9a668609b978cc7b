"""The only PKCS#11 calls: modules, tokens, keys, the signer."""
