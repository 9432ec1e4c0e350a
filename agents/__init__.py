"""Variation operators: they propose the next candidate."""

if __name__ != "avo.agents":  # a checkout on the path has this folder under both names
    raise ModuleNotFoundError("write avo.agents, or run outside of AVO's checkout", name=__name__)
