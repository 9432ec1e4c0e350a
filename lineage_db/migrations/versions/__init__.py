"""Schema revisions, in the order their ``down_revision`` gives. One that was released is never changed."""
