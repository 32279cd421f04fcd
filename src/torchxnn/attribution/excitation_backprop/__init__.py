"""Excitation backprop and its contrast on any network: record, propagate by rules, certify."""
