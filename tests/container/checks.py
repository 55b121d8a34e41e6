"""Counting, and what can be checked of an image without starting it."""
import hashlib
import json
import os
import re
import stat

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
SHARE = "/usr/local/share/hwgqd"
SBOM = SHARE + "/sbom.spdx.json"
LARGEST = 25e6  # bytes, all files together


class Counts:
    passed = failed = skipped = 0


def check(what, good, detail=""):
    if good:
        Counts.passed += 1
        print("ok     " + what, flush=True)
    else:
        Counts.failed += 1
        print("FAILED %s %s" % (what, str(detail)[-1500:]), flush=True)
    return good


def skip(why):
    Counts.skipped += 1
    print("SKIPPED " + why, flush=True)


def version():
    with open(os.path.join(ROOT, "engine/hwgq.h")) as stream:
        return re.search(r'^#define HWGQ_VERSION "(.*)"', stream.read(), re.M).group(1)


def contents(root):
    """{path in the image: (status, bytes)} of all that is not a folder."""
    found = {}
    for parent, _, names in os.walk(root):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, "rb") as stream:
                found["/" + os.path.relpath(path, root)] = (os.lstat(path), stream.read())
    return found


def files(root):
    found = contents(root)
    size = sum(len(data) for _, data in found.values())
    check("%.1f MB, at most %.0f" % (size / 1e6, LARGEST / 1e6), 3e6 < size <= LARGEST)
    elf = {path: data for path, (_, data) in found.items() if data[:4] == b"\x7fELF"}
    check("one program: no shell", [path for path in elf if "/lib" not in path] == ["/usr/local/bin/hwgqd"], elf.keys())
    check("no debugging symbols in it", b".debug_info" not in elf["/usr/local/bin/hwgqd"])
    odd = [path for path, (status, _) in found.items() if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o6022 or status.st_uid]
    check("only plain files of root's that nobody else may write", not odd, odd)
    check("networks", all(SHARE + "/models/zoo/" + name in found for name in ("cifar10.hwgq", "fashion-mnist.hwgq", "tiny-imagenet.hwgq")))
    check("tells its distribution", b"ID=debian" in found.get("/usr/lib/os-release", (0, b""))[1])
    terms = {path: data for path, (_, data) in found.items() if path.endswith("/copyright")}
    referred = {name.decode() for data in terms.values() for name in re.findall(rb"/usr/share/common-licenses/[\w.-]*\w", data)}
    check("licences of %d packages, and the %d texts that they refer to" % (len(terms), len(referred)),
          len(terms) > 10 and referred <= found.keys(), referred - found.keys())
    return found, elf


def sbom(found, elf, architecture):
    document = json.loads(found.pop(SBOM)[1])
    check("SBOM: SPDX 2.3", document["spdxVersion"] == "SPDX-2.3" and document["dataLicense"] == "CC0-1.0" and
          all(document.get(key) for key in ("SPDXID", "name", "documentNamespace", "creationInfo")))
    sums = {file["fileName"][1:]: {c["algorithm"]: c["checksumValue"] for c in file["checksums"]} for file in document["files"]}
    check("SBOM: the image's %d files, no others" % len(sums), sums.keys() == found.keys(), sums.keys() ^ found.keys())
    wrong = [path for path, (_, data) in found.items()
             if sums.get(path) != {"SHA1": hashlib.sha1(data).hexdigest(), "SHA256": hashlib.sha256(data).hexdigest()}]
    check("SBOM: their hashes", not wrong, wrong)
    names = {file["SPDXID"]: file["fileName"][1:] for file in document["files"]}
    packages = {package["SPDXID"]: package for package in document["packages"]}
    relations = [(r["spdxElementId"], r["relationshipType"], r["relatedSpdxElement"]) for r in document["relationships"]]
    known = {"SPDXRef-DOCUMENT", *names, *packages}
    check("SBOM: every identifier once, relations between them", len(known) == 1 + len(document["files"]) + len(document["packages"]) and
          all(a in known and b in known for a, _, b in relations))
    owner = {names[b]: packages[a]["name"] for a, kind, b in relations if kind == "CONTAINS"}
    check("SBOM: every file belongs to one package", set(owner) == set(names.values()) and
          sum(kind == "CONTAINS" for _, kind, _ in relations) == len(names))
    check("SBOM: libraries are Debian's, the rest is ours", all((owner[path] == "hwgqd") == (path == "/usr/local/bin/hwgqd") for path in elf) and
          all(owner[path] == "hwgqd" for path in found if path.startswith("/usr/local/")), owner)
    versions = {package["name"]: package["versionInfo"] for package in document["packages"]}
    check("SBOM: our version", versions["hwgqd"] == version(), versions)
    for name, text in versions.items():
        control = found.get("/var/lib/dpkg/status.d/" + name, (0, b""))[1].decode()
        if name != "hwgqd" and ("\nVersion: %s\n" % text not in control or "Package: %s\n" % name not in control):
            check("SBOM and dpkg's data agree on " + name, False, control)
    urls = [package["externalRefs"][0]["referenceLocator"] for package in document["packages"]]
    check("SBOM: package URLs", all(re.fullmatch(r"pkg:(deb/debian|generic)/[a-z0-9.+-]+@[^?]+\?arch=\w+(&distro=debian-12)?", url) for url in urls) and
          "arch=" + architecture in urls[0], urls)


def configuration(config):
    check("user without rights, by number", config["User"] == "65532:65532", config)
    check("health check is the program's own", config["Healthcheck"]["Test"][:3] == ["CMD", "/usr/local/bin/hwgqd", "--health"], config)
    check("stops by SIGTERM, serves 8080", config["StopSignal"] == "SIGTERM" and list(config["ExposedPorts"]) == ["8080/tcp"], config)
    labels = {name.replace("org.opencontainers.image.", ""): text for name, text in config["Labels"].items()}
    check("labels", labels["version"] == version() and labels["licenses"] == "MIT" and labels["title"] == "hwgqd" and
          len(labels["description"]) > 10 and re.fullmatch("[0-9a-f]{40}|", labels["revision"]), labels)


def image(root, config, architecture):
    found, elf = files(root)
    machine = {"amd64": 62, "arm64": 183}[architecture]  # e_machine
    check("compiled for " + architecture, elf and all(data[18] == machine for data in elf.values()))
    configuration(config)
    sbom(found, elf, architecture)
