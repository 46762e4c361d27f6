"""IMA: the part of a measurement list that a quote proves, and what it comes to under a runtime policy."""
