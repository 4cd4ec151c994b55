"""Recommenders that learn on people's own devices: one file a method; ``core`` is what they share.

A *client* is one user. A *node* holds one client or many, and sends only sums over its clients
and counts. The same methods run in this process, in Flower's simulation and in a deployment.
"""
