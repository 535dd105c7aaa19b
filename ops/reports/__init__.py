"""What people read of queue and money."""
