"""The runtime: ownership, order, retry, duplicates, commit and publishing, the same for every worker."""
