"""Peers: other task queues on Postgres, measured beside pgtasks on the same server.

Each has an environment of its own, since none of them is a dependency of pgtasks, and one small
file here that is run in it: how it is set up, deferred to and worked, as its documentation says.
"""
