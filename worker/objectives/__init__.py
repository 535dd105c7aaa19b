"""Objectives: what clients were promised (policies/slo.yaml), measured from the history."""
