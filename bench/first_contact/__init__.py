"""Ten minutes on a borrowed card: as much evidence as the time allows."""
