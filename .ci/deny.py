"""Checks the dependency tree against deny.toml where cargo-deny itself is not to be had.

Reads deny.toml and `cargo metadata`; prints what is wrong and leaves with 1, or one line and 0.
Knows licences.allow, bans.deny and sources.allow-registry, which is all that deny.toml says.
"""

import collections
import json
import re
import subprocess
import sys

try:
    import tomllib
except ImportError:  # Python before 3.11
    from pip._vendor import tomli as tomllib


def tree(target):
    """The packages that a build for `target` may contain, without our own."""
    command = ["cargo", "metadata", "--locked", "--all-features", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    return [p for p in metadata["packages"] if p["id"] in used and p["source"] is not None]


def permitted(expression, allowed):
    """Whether an SPDX expression can be met with allowed licences; `/` is the old way to write OR."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def term():
        word = words.pop(0)
        if word == "(":
            value = either()
            words.pop(0)
            return value
        if words[:1] == ["WITH"]:
            word = f"{word} WITH {words[1]}"
            del words[:2]
        return word in allowed

    def both():
        value = term()
        while words[:1] == ["AND"]:
            words.pop(0)
            value = term() and value
        return value

    def either():
        value = both()
        while words[:1] == ["OR"]:
            words.pop(0)
            value = both() or value
        return value

    return either()


def problems(packages, rules):
    allowed = set(rules["licenses"]["allow"])
    origins = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    versions = collections.defaultdict(list)
    for package in packages:
        name = f"{package['name']} {package['version']}"
        versions[package["name"]].append(package["version"])
        if not package["license"]:
            yield f"{name}: no licence expression"
        elif not permitted(package["license"], allowed):
            yield f"{name}: licence {package['license']} is not allowed"
        if package["source"] not in origins:
            yield f"{name}: comes from {package['source']}"
    for rule in rules["bans"]["deny"]:
        found = versions.get(rule["name"], [])
        if rule.get("deny-multiple-versions"):
            if len(found) > 1:
                yield f"{rule['name']}: more than one version: {', '.join(sorted(found))}"
        elif found:
            yield f"{rule['name']}: banned"


def main():
    with open("deny.toml", "rb") as file:
        rules = tomllib.load(file)
    packages = tree(sys.argv[1])
    found = list(problems(packages, rules))
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    if found:
        return 1
    print(f"{len(packages)} packages: licences, bans and sources are as deny.toml says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
