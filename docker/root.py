"""Completes the folder that becomes the image: adds, for every program in FOLDER, the dynamic loader and the libraries that it needs
(and that those need), out of Debian's packages, with what says where they come from:
  usr/share/doc/PACKAGE/copyright     their licences, and what those refer to in usr/share/common-licenses
  var/lib/dpkg/status.d/PACKAGE       their versions, where vulnerability scanners look for them in images without a dpkg
  usr/local/share/hwgqd/sbom.spdx.json
    usage: root.py FOLDER MACHINE ARCHITECTURE      e.g. root.py /out aarch64-linux-gnu arm64"""
import os
import re
import shutil
import stat
import subprocess
import sys

import sbom

FIELDS = ("Package", "Version", "Architecture", "source:Package", "source:Version", "Homepage")
EXTRA = ["/usr/lib/os-release"]  # tells scanners whose versions those are


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed(path, machine):
    """Names of the libraries and, of a program, the path of the loader that an ELF file asks for."""
    names = re.findall(r"\(NEEDED\).*\[(.*)\]", output(machine + "-readelf", "-dW", path))
    return names, re.findall(r"Requesting program interpreter: (.*)\]", output(machine + "-readelf", "-lW", path))


def find(name, machine):
    for folder in ("/usr/lib/" + machine, "/lib/" + machine):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            return path
    raise SystemExit("root.py: %s is not among the libraries for %s: install its package for that architecture" % (name, machine))


def libraries(programs, machine):
    """{path in the image: file here} of all that the programs load."""
    found, todo = {}, list(programs)
    while todo:
        names, loaders = needed(todo.pop(), machine)
        for name in names:
            path = "/usr/lib/%s/%s" % (machine, name)
            if path not in found and not name.startswith("ld-linux"):
                found[path] = find(name, machine)
                todo.append(found[path])
        for loader in loaders:
            found[loader] = os.path.realpath(loader)
    return found


def query(architecture, path):
    """What dpkg knows of the package that a file belongs to, that for the architecture if there are several. /lib may be a link to
    /usr/lib that dpkg has not heard of."""
    lines = output("dpkg-query", "-S", "*" + re.sub(r"^/usr", "", path)).splitlines()
    found = []
    for package in sorted({line.split(": ")[0] for line in lines}):
        values = output("dpkg-query", "-W", "-f", "\t".join("${%s}" % field for field in FIELDS), package).split("\t")
        found.append(dict(zip(("name", "version", "architecture", "source", "source_version", "homepage"), values)))
        found[-1]["status"] = output("dpkg-query", "-s", package)
    return max(found, key=lambda facts: facts["architecture"] == architecture)


def put(folder, source, target):
    path = folder + target
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copyfile(os.path.realpath(source), path)
    os.chmod(path, stat.S_IMODE(os.stat(source).st_mode))


def main(folder, machine, architecture):
    programs = [os.path.join(folder, "usr/local/bin", name) for name in os.listdir(os.path.join(folder, "usr/local/bin"))]
    files = libraries(programs, machine)
    files.update((path, path) for path in EXTRA)
    packages = {}

    def take(target, source):
        put(folder, source, target)
        facts = query(architecture, os.path.realpath(source))
        packages.setdefault(facts["name"], {**facts, "files": []})["files"].append(target)
        return facts["name"]

    common = set()
    for name in sorted({take(target, source) for target, source in files.items()}):
        with open("/usr/share/doc/%s/copyright" % name, encoding="utf-8", errors="replace") as stream:
            common.update(re.findall(r"/usr/share/common-licenses/[\w.-]*\w", stream.read()))
    for path in sorted(common):
        take(path, path)
    for name, facts in packages.items():
        terms, status = "/usr/share/doc/%s/copyright" % name, "/var/lib/dpkg/status.d/" + name
        put(folder, terms, terms)
        os.makedirs(os.path.dirname(folder + status), exist_ok=True)
        with open(folder + status, "w") as stream:
            stream.write(facts["status"])
        facts["files"] += [terms, status]
    sbom.write(folder, [packages[name] for name in sorted(packages)], architecture)


main(*sys.argv[1:])
