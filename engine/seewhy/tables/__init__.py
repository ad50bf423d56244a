"""Results as rows, in Parquet and npz shards and in Ray datasets."""
