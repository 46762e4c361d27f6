"""A fleet that attests while something breaks, and a look at what was stored afterwards."""
