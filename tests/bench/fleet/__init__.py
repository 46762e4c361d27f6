"""A fleet in software: guests whose TPMs really sign, against a verifier that does not know they are simulated."""
