"""What failover costs a month and what it saves: the calculation, its inputs, and the sheet with the same formulas."""
