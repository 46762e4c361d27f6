"""Fuzz targets for everything that reads what others wrote; see docs/fuzzing.md.

A target returns, or raises an error that its module names: anything else is a fault. The same targets run over seeds and
seeded mutations in `make test`, and under atheris, which looks for new paths, in `make fuzz`.
"""
