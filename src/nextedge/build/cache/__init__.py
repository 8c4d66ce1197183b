"""How a build avoids work: fingerprints of inputs, outputs in a bucket, named runs, memory and cost."""
