"""The channels that send messages to people, one file each."""
