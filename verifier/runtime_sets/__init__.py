"""Make runtime sets from packages, images, file systems and lists: what reads files, outside the pure core."""
