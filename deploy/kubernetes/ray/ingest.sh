# Runs on the head of the Ray cluster, where `auto` finds it.
# --allow-failed: KubeRay can't tell exit codes apart, and a new cluster would find the same images that failed.
# exec: a signal for this script is one for the ingest, which ends in good order.
exec stair-es ingest "$SOURCE" --runner ray --ray-address auto --gpus-per-encoder "${GPUS_PER_ENCODER:-0}" \
  --precision "${PRECISION:-fp32}" --dead-letters /dead-letters/ray.jsonl --allow-failed
