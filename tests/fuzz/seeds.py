#!/usr/bin/env python3
"""Writes what fuzzing of the image store begins with: seeds.py TARGET DIRECTORY"""
import gzip, hashlib, io, json, os, sys, tarfile

OCI = "application/vnd.oci.image."


def tree(form):
    """A layer with one of everything a layer can hold."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as tar:
        def add(name, kind=tarfile.REGTYPE, data=b"", **fields):
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mode = kind, len(data), 0o755
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
        add("d", tarfile.DIRTYPE)
        add("d/f", data=b"content", mode=0o4755, uid=5_000_000, mtime=1.5 if form == tarfile.PAX_FORMAT else 1)
        add("d/link", tarfile.LNKTYPE, linkname="d/f")
        add("d/symlink", tarfile.SYMTYPE, linkname="../../etc")
        add("d/fifo", tarfile.FIFOTYPE)
        add("d/device", tarfile.CHRTYPE, devmajor=1, devminor=3)
        add("d/.wh.gone")
        add("e/.wh..wh..opq")
        add("n" * 150 + "/" + "m" * 90, data=b"x")
        if form == tarfile.PAX_FORMAT:
            add("x", data=b"y", pax_headers={"SCHILY.xattr.user.a": "b", "GNU.sparse.major": "1"})
    return raw.getvalue()


def archive(old):
    """What `docker save` wrote before and since version 25."""
    layer = tree(tarfile.PAX_FORMAT)
    digest = lambda data: hashlib.sha256(data).hexdigest()
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
                         "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest(layer)]},
                         "history": [{"created_by": "x"}]}).encode()
    layer_path, config_path = ("l/layer.tar", digest(config) + ".json") if old else (
        "blobs/sha256/" + digest(layer), "blobs/sha256/" + digest(config))
    files = {layer_path: layer, config_path: config}
    describe = lambda data, kind: {"mediaType": OCI + kind, "digest": "sha256:" + digest(data), "size": len(data)}
    if not old:
        manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                               "config": describe(config, "config.v1+json"),
                               "layers": [describe(layer, "layer.v1.tar")]}).encode()
        files["blobs/sha256/" + digest(manifest)] = manifest
        files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [
            {**describe(manifest, "manifest.v1+json"), "annotations": {"io.containerd.image.name": "docker.io/library/a:1"}}]}).encode()
    files["manifest.json"] = json.dumps([{"Config": config_path, "RepoTags": ["a:1"], "Layers": [layer_path]}]).encode()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def seeds(target):
    if target == "unpack":
        trees = [tree(form) for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]
        return trees + [gzip.compress(trees[0])]
    if target == "load":
        return [archive(old=True), archive(old=False), gzip.compress(archive(old=True))]
    if target == "documents":
        with tarfile.open(fileobj=io.BytesIO(archive(old=False))) as tar:
            return [tar.extractfile(member).read() for member in tar if member.size < 2000]
    if target == "reference":
        return [b"busybox", b"localhost:5000/a/b_c--d:1.2-x@sha256:" + b"a" * 64, b"linux/arm64/v8", b"sha256:" + b"0" * 64]
    return []


target, directory = sys.argv[1:]
os.makedirs(directory, exist_ok=True)
for number, seed in enumerate(seeds(target)):
    with open(os.path.join(directory, str(number)), "wb") as out:
        out.write(seed)
