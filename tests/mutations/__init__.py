"""Guards of pgtasks, each taken out by a patch: for each, at least one test has to fail.

A guard that no test misses is one that the next change takes out unseen. `make mutations` applies
every patch to a copy of the tree, runs the tests that its head names, and fails for those that stay
green.
"""
