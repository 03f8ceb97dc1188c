# Runs on the head of the Ray cluster, so the address `auto` works.
# --allow-failed: KubeRay retries on any non-zero exit code, and the same images would fail again in a new cluster.
# exec: signals reach the ingest, which then shuts down cleanly.
exec stair-es ingest "$SOURCE" --runner ray --ray-address auto --gpus-per-encoder "${GPUS_PER_ENCODER:-0}" \
  --encoders "${ENCODERS:-0}" --metrics-port 9464 --metrics-host 0.0.0.0 --dead-letters /shared/ray.jsonl --allow-failed
