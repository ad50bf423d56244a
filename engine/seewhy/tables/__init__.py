"""Results as rows: Parquet and npz shards, and datasets of Ray."""
