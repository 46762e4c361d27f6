"""What agent and verifier both speak: message types, codec and size limits. Nothing else is shared."""
