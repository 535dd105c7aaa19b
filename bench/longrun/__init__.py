"""What shows only after long: half an hour of load, a ledger of millions of rows, a simulated year."""
