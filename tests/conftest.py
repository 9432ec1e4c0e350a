"""What holds for all tests."""

from evaluator.allocator import keep_freed_memory

keep_freed_memory()  # as a judge's process does: many tests judge
