"""
How fast it is, as ratios to limits measured in the same run: `make bench`, or `python -m bench --help`.

Every figure comes from a fresh process; strategies take turns, round by round, so that whatever else the machine does
meets all of them. No number is stored and none is asserted: docs/performance.md tells how to read them.
"""
