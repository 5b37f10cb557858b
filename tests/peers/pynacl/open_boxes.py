"""Opens sealed boxes with libsodium (through PyNaCl).

Reads JSON lines from stdin. `{"generate": true}` answers a fresh key pair; `{"private": …, "box": …}`
answers the plaintext, opened twice: by the library's own sealed-box call, and by `crypto_box` with
the nonce worked out by hand, which proves the layout. All binary values are standard base64.
"""

import base64
import hashlib
import json
import sys

import nacl.bindings
import nacl.public


def decode(text):
    return base64.b64decode(text, validate=True)


def encode(data):
    return base64.b64encode(data).decode("ascii")


for line in sys.stdin:
    question = json.loads(line)
    if question.get("generate"):
        private = nacl.public.PrivateKey.generate()
        answer = {
            "private": encode(bytes(private)),
            "public": encode(bytes(private.public_key)),
        }
    else:
        private = nacl.public.PrivateKey(decode(question["private"]))
        public = bytes(private.public_key)
        box = decode(question["box"])
        plain = nacl.public.SealedBox(private).decrypt(box)
        ephemeral, sealed = box[:32], box[32:]
        nonce = hashlib.blake2b(ephemeral + public, digest_size=24).digest()
        by_hand = nacl.bindings.crypto_box_open(sealed, nonce, ephemeral, bytes(private))
        answer = {"plain": encode(plain), "agree": plain == by_hand}
    print(json.dumps(answer), flush=True)
