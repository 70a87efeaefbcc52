"""The grpcurl transcript and the Python client of the README, run as they stand there."""

import os
import re
import subprocess
import sys

MARK = "@@@"
VARIABLE = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"127\.0\.0\.1:\d+", "<address>"),
    (r'("requestId": ")[0-9a-f]+', r"\1<request>"),
]


def block(readme, after):
    """The fenced block that follows the marker comment."""
    found = re.search(rf"<!-- {after} -->\n```\w*\n(.*?)```", readme, re.S)
    assert found, f"README.md has no block marked {after}"
    return found.group(1)


def normal(text):
    for pattern, name in VARIABLE:
        text = re.sub(pattern, name, text)
    return [line.rstrip() for line in text.strip().splitlines()]


def transcript(text):
    """Pairs of command and expected output."""
    pairs = []
    for line in text.splitlines():
        if line.startswith("$ "):
            pairs.append([line[2:], []])
        elif line.startswith("> "):
            pairs[-1][0] += "\n" + line[2:]
        else:
            pairs[-1][1].append(line)
    return pairs


def addressed(services, text):
    text = text.replace("127.0.0.1:50051", services.metadata.address)
    return text.replace("127.0.0.1:50052", services.chunk.address)


def test_the_grpcurl_transcript_is_true(services, repository, tmp_path):
    readme = (repository / "README.md").read_text()
    pairs = transcript(block(readme, "transcript: grpcurl"))
    assert len(pairs) >= 5
    script = "\n".join(f"{command}\necho '{MARK}'" for command, _expected in pairs)
    environment = dict(os.environ, TOKEN=services.register("readme-grpcurl"))
    done = subprocess.run(
        ["bash", "-c", "exec 2>&1\n" + addressed(services, script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    outputs = done.stdout.split(f"{MARK}\n")
    assert len(outputs) == len(pairs) + 1, done.stdout
    for (command, expected), output in zip(pairs, outputs):
        assert normal(output) == normal("\n".join(expected)), command


def test_the_python_client_works(services, repository, tmp_path):
    readme = (repository / "README.md").read_text()
    source = addressed(services, block(readme, "program: python"))
    environment = dict(os.environ, MINI_TECTONIC_TOKEN=services.register("readme-python"))
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "hello from Python" in done.stdout
