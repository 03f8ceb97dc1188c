# Runs on the head of the Ray cluster, where `auto` finds it.
stair-es ingest "$SOURCE" --runner ray --ray-address auto --gpus-per-encoder "${GPUS_PER_ENCODER:-0}" \
  --precision "${PRECISION:-fp32}" --dead-letters /dead-letters/ray.jsonl
code=$?
# 3: the run went through, some images are dead. KubeRay can't tell exit codes apart, and a new cluster would find the same ones.
if [ "$code" -eq 3 ]; then exit 0; fi
exit "$code"
