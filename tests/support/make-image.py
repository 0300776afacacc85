#!/usr/bin/env python3
"""Writes an OCI layout with a made image, the same bytes each time on one machine: make-image.py DIRECTORY big|some|tiny

big:  1 GB in 12 layers; many small files, some of middle size, few large ones, of content that compresses as software
      does (about 2.5 times).
some: 120 layers with one small file each.
tiny: 200 of them.

The first layer has /bin/true: this machine's static busybox.
"""
import gzip, hashlib, io, json, os, random, sys, tarfile, zlib
from concurrent.futures import ProcessPoolExecutor

# Sizes of files and their share of the bytes of a layer, as in distribution images.
MIX = [((200, 8_000), 0.25), ((8_000, 120_000), 0.30), ((500_000, 4_000_000), 0.25), ((12_000_000, 20_000_000), 0.20)]


def vocabulary(rng):
    word = lambda: bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz_0123456789", k=rng.randint(2, 12)))
    words = [word() for _ in range(500)]
    return words, [b" ".join(rng.choices(words, k=12)) for _ in range(100)]


def content(rng, words, phrases, size):
    """A fifth noise, half words, the rest phrases."""
    noise = rng.randbytes(size // 5)
    text = b" ".join(rng.choices(words, k=size // 16 + 1)) + b"\n" + b"\n".join(rng.choices(phrases, k=size // 200 + 1))
    return (noise + text * 2)[:size].ljust(size, b"\n")


def layer(arguments):
    number, total = arguments
    rng = random.Random(number)
    words, phrases = vocabulary(rng)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        def add(name, data=None, mode=0o644):
            info = tarfile.TarInfo(name)
            info.mtime, info.mode = 1_700_000_000 + rng.randrange(10**6), 0o755 if data is None else mode
            if data is None:
                info.type = tarfile.DIRTYPE
                return tar.addfile(info)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if number == 0:
            add("bin/")
            with open("/bin/busybox", "rb") as busybox:
                add("bin/true", busybox.read(), 0o755)
        add(f"l{number}/")
        count = 0
        for (low, high), share in MIX if total > 100_000 else [((1000, 2000), 1)]:
            left = total * share
            while left > 0:
                if count % 40 == 0:
                    add(f"l{number}/d{count // 40}/")
                size = rng.randint(low, high)
                add(f"l{number}/d{count // 40}/f{count}", content(rng, words, phrases, size))
                left, count = left - size, count + 1
    data = raw.getvalue()
    packed = gzip.compress(data, 6, mtime=0)
    return packed, hashlib.sha256(data).hexdigest()


def main(directory, kind):
    count, size = {"big": (12, 85_000_000), "some": (120, 1000), "tiny": (200, 1000)}[kind]
    blobs = os.path.join(directory, "blobs", "sha256")
    os.makedirs(blobs, exist_ok=True)

    def put(data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(blobs, digest), "wb") as out:
            out.write(data)
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}

    oci = "application/vnd.oci.image."
    layers, diff_ids = [], []
    with ProcessPoolExecutor() as pool:
        for packed, diff_id in pool.map(layer, [(n, size) for n in range(count)]):
            layers.append(put(packed, oci + "layer.v1.tar+gzip"))
            diff_ids.append("sha256:" + diff_id)
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"]},
              "rootfs": {"type": "layers", "diff_ids": diff_ids},
              "history": [{"created_by": f"layer {n}"} for n in range(count)]}
    config = put(json.dumps(config).encode(), oci + "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": config, "layers": layers}
    entry = put(json.dumps(manifest).encode(), oci + "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": kind}
    with open(os.path.join(directory, "index.json"), "w") as out:
        json.dump({"schemaVersion": 2, "manifests": [entry]}, out)
    with open(os.path.join(directory, "oci-layout"), "w") as out:
        out.write('{"imageLayoutVersion":"1.0.0"}')
    print(f"{kind}: {count} layers, {sum(l['size'] for l in layers) / 1e6:.0f} MB compressed")


main(*sys.argv[1:])
