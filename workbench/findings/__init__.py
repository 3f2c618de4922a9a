"""What reading a trace can find, as plain values: below what draws them, and below what works them out."""
