"""Rehearsals with a verdict: a drill is a file of steps with faults and expected evidence, which is run and judged."""
