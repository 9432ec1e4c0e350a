"""Variation operators: they propose the next candidate."""
