# Runs on the head of the Ray cluster, so the address `auto` works.
# --allow-failed: KubeRay retries on any non-zero exit code, and the same images would fail again in a new cluster.
# exec: signals reach the ingest, which then shuts down cleanly.
exec stair-es ingest "$SOURCE" --runner ray --ray-address auto --gpus-per-encoder "${GPUS_PER_ENCODER:-0}" \
  --precision "${PRECISION:-auto}" --dead-letters /dead-letters/ray.jsonl --allow-failed
