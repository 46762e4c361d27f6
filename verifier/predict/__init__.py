"""PURE: from the files of an image to the PCR values that a boot of it leads to (docs/prediction.md)."""
