"""What a person does on the pages: each act says first what will happen, then does it, and says how to undo it."""
