"""Captured packets in; flow, payload and name batches out."""
