"""Judges in processes of their own, and the protocol that they use."""
