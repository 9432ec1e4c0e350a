"""Ten minutes on a borrowed card: whatever time there is, the most evidence."""
