"""Costs as ratios against the bare operation in the same run: `python -m tests.bench [NAME...]`."""
