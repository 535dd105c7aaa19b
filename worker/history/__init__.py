"""What happened: what leaves Redis after a while, and where it is written before it does."""
