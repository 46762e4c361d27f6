"""A database held against its transparency log, without the service: nothing here writes, or trusts a row.

Everything is read in one snapshot and as a stream: memory does not grow with the database. Leaf hashes are made
again from the rows into a file on disk, and held against the tiles, which are held against the signed root.
"""
