"""The files that ``evaluate`` leaves in a test set's folder."""

EMBEDDINGS = "embeddings.parquet"
RANKS = "ranks.parquet"
METRICS = "metrics.json"
AUDIT = "audit.json"
CURVE = "curve.csv"
QUERY_BANK = "query_bank.parquet"
