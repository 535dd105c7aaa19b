"""What calls cost, the caps that hold them, and answers that are given again."""
