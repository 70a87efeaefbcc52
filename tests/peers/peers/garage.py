"""Garage: one node, with metadata and data synced."""

import pathlib
import re
import secrets

from . import processes
from .processes import Service

CONFIGURATION = """
metadata_dir = "{folder}/meta"
data_dir = "{folder}/data"
db_engine = "lmdb"
metadata_fsync = true
data_fsync = true
replication_factor = 1
compression_level = "none"
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secret}"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:{s3}"
root_domain = ".s3.garage.localhost"
[admin]
api_bind_addr = "127.0.0.1:{admin}"
"""
BUCKET = "peers"


def version():
    found = re.search(r"v?(\d+\.\d+\.\d+)", processes.run("garage", "--version").stdout)
    return f"Garage {found[1]}"


class Garage:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir()
        rpc, self.s3, admin = processes.free_ports(3)
        self.configuration = self.folder / "garage.toml"
        self.configuration.touch(mode=0o600)
        self.configuration.write_text(
            CONFIGURATION.format(folder=self.folder, rpc=rpc, s3=self.s3, admin=admin, secret=secrets.token_hex(32))
        )
        self.service = Service(
            self.folder / "garage.log", "garage", "-c", self.configuration, "server", ready=self.answers
        )
        node = self.command("node", "id", "-q").split("@")[0]
        self.command("layout", "assign", "-z", "here", "-c", "200GB", node)
        self.command("layout", "apply", "--version", "1")
        key = self.command("key", "create", "peers")
        self.key_id = re.search(r"Key ID:\s+(\S+)", key)[1]
        self.secret = re.search(r"Secret key:\s+(\S+)", key)[1]
        self.command("bucket", "create", BUCKET)
        self.command("bucket", "allow", "--read", "--write", "--owner", BUCKET, "--key", self.key_id)

    def command(self, *words):
        return processes.run("garage", "-c", self.configuration, *words).stdout

    def answers(self):
        try:
            return self.command("status")
        except RuntimeError:
            return None

    def stop(self):
        self.service.stop()

    def remote(self):
        """As rclone calls it. The secret goes by the environment."""
        door = f"endpoint='http://127.0.0.1:{self.s3}',region=garage,force_path_style=true"
        return f":s3,provider=Other,{door},env_auth=true:"

    def environment(self):
        return {"AWS_ACCESS_KEY_ID": self.key_id, "AWS_SECRET_ACCESS_KEY": self.secret}
