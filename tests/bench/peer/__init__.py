"""Keylime's verifier and ours on the same quote, boot log and IMA list, in one run."""
