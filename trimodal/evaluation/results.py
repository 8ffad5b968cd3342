"""The files that ``evaluate`` leaves in a test set's folder."""

EMBEDDINGS = "embeddings.parquet"
RANKS = "ranks.parquet"
METRICS = "metrics.json"
AUDIT = "audit.json"
CURVE = "curve.csv"
QUERY_BANK = "query_bank.parquet"
CLASSES, CONFUSIONS, ITEMS = "classes.parquet", "confusions.parquet", "items.parquet"  # zero_shot
MAPS = "sound_maps.parquet"  # examples of kind localisation, for the report
# All but embeddings, which say what they are of.
RESULTS = (RANKS, METRICS, AUDIT, CURVE, CLASSES, CONFUSIONS, ITEMS, MAPS)
