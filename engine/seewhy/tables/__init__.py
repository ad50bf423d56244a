"""Tables of results: Parquet and npz shards, and datasets of Ray."""
