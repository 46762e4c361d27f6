"""Many lives of many machines: the real agent on software TPMs, the real service on SQLite, and faults on the way.

`honest` lives know everything that happens to a machine that nobody copies or restores; none may raise an alarm. In
`guilty` ones a machine is copied or brought back at some point; each has to be found, by the right name. Both are
seeded: a number makes the same life again. `python -m tests.lifecycles --help`; `make lifecycles` runs them in full.
"""
