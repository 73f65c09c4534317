"""For each key of `KEY {"embedding": …}` lines on standard input: the key whose embedding is nearest, and their cosine."""

import json
import sys


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


embeddings = {}
for line in sys.stdin:
    key, _, value = line.partition(" ")
    embeddings[key] = json.loads(value)["embedding"]

for key in sorted(embeddings):
    # Embeddings have length 1, so that the dot product is the cosine.
    cosine = {
        other: dot(embeddings[key], embedding) for other, embedding in embeddings.items() if other != key
    }
    nearest = max(cosine, key=cosine.get)
    print(f"{key} {nearest} {cosine[nearest]:.3f}")
