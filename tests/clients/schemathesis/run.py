"""Asks a live sidecar everything that its OpenAPI document says.

Arguments: the sidecar's URL, an API key, how many examples each operation gets. Prints schemathesis' own report, and ends
with its status.
"""

import pathlib
import subprocess
import sys

url, key, examples = sys.argv[1:]
config = pathlib.Path(__file__).with_name("schemathesis.toml")
command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{url}/openapi.json"]
command += ["--header", f"X-API-Key: {key}", "--max-examples", examples, "--warnings", "off"]
sys.exit(subprocess.run(command).returncode)
