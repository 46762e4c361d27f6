"""The service against a model of it: whatever happens in whatever order, each step has one right answer."""
