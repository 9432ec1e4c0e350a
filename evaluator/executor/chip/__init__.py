"""What a program has on the chip: shared and tensor memory, barriers, partitions that run side by side.

Data moves when an asynchronous operation is issued. Clocks tell whether a barrier or a wait has said by then
that it may be used; every use that comes too early is a finding.
"""
