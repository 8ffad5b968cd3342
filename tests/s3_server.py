"""An S3 server (moto's) on loopback, and buckets on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path

import pytest

from trimodal.core.storage import storage_path


@contextmanager
def s3_server() -> Iterator[None]:
    """A server that runs as long as the block, in which the environment says where it is."""
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        # Workers have the environment of the server that forks them: let it start anew.
        forkserver._forkserver._stop()  # type: ignore[attr-defined]
        S3FileSystem.clear_instance_cache()  # those of an earlier server
        yield
    started.stop()


def new_bucket(test: str) -> str:
    """The URL of a new bucket, named after a test."""
    name = "bucket-" + test.lower().replace("_", "-")[-40:].strip("-")
    storage_path(f"s3://{name}").fs.mkdir(name)  # type: ignore[attr-defined]
    return f"s3://{name}"


def put(folder: Path, url: str) -> None:
    """Copies a folder's files to a URL."""
    for path in folder.iterdir():
        (storage_path(url) / path.name).write_bytes(path.read_bytes())


def stored(url: str) -> dict[str, bytes]:
    """The files at a URL by their name."""
    return {
        path.name: path.read_bytes() for path in storage_path(url).glob("*") if not path.is_dir()
    }
