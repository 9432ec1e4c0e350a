"""The knowledge base K: notes on architectures, Triton and attention kernels."""

if __name__ != "avo.knowledge_base":  # a checkout on the path has this folder under both names
    raise ModuleNotFoundError("write avo.knowledge_base, or run outside of AVO's checkout", name=__name__)
