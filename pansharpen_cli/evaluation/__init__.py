"""Judging: by Wald's protocol, by a given truth, or by a product's own inputs."""
