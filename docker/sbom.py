"""Writes the image's software bill of materials (SPDX 2.3, JSON): every file in it with its hashes, every Debian package that files were
taken from, and hwgqd itself, to which all the other files belong. https://spdx.github.io/spdx-spec/v2.3/"""
import hashlib
import json
import os
import re
import time
import urllib.parse

PATH = "/usr/local/share/hwgqd/sbom.spdx.json"


def version():
    with open("engine/hwgq.h") as stream:
        return re.search(r'^#define HWGQ_VERSION "(.*)"', stream.read(), re.M).group(1)


def files_below(folder):
    for parent, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            yield "/" + os.path.relpath(os.path.join(parent, name), folder)


def describe_file(folder, path, number):
    with open(folder + path, "rb") as stream:
        data = stream.read()
    return {"SPDXID": "SPDXRef-File-%d" % number, "fileName": "." + path, "licenseConcluded": "NOASSERTION", "copyrightText": "NOASSERTION",
            "checksums": [{"algorithm": name.upper(), "checksumValue": hashlib.new(name, data).hexdigest()} for name in ("sha1", "sha256")]}


def describe_package(name, version, files, licence, supplier, locator, **more):
    """A package; its verification code is defined in section 7.9 of the specification."""
    code = hashlib.sha1("".join(sorted(file["checksums"][0]["checksumValue"] for file in files)).encode()).hexdigest()
    return {"SPDXID": "SPDXRef-Package-" + re.sub(r"[^A-Za-z0-9.-]", "-", name), "name": name, "versionInfo": version, "supplier": supplier,
            "downloadLocation": "NOASSERTION", "filesAnalyzed": True, "packageVerificationCode": {"packageVerificationCodeValue": code},
            "licenseConcluded": "NOASSERTION", "licenseDeclared": licence, "licenseInfoFromFiles": ["NOASSERTION"],
            "copyrightText": "NOASSERTION",
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}], **more}


def write(folder, debian, architecture):
    """debian: dictionaries with name, version, architecture, source, source_version, homepage and files, paths in the image."""
    owners = {path: package["name"] for package in debian for path in package["files"]}
    files = {path: describe_file(folder, path, i) for i, path in enumerate(files_below(folder), 1) if path != PATH}
    packages = [describe_package("hwgqd", version(), [file for path, file in files.items() if path not in owners], "MIT",
                                 "NOASSERTION", "pkg:generic/hwgqd@%s?arch=%s" % (version(), architecture), primaryPackagePurpose="APPLICATION")]
    for package in debian:
        packages.append(describe_package(
            package["name"], package["version"], [files[path] for path in package["files"]], "NOASSERTION", "Organization: Debian",
            "pkg:deb/debian/%s@%s?arch=%s&distro=debian-12" % (package["name"], urllib.parse.quote(package["version"], safe=""),
                                                               package["architecture"]),
            sourceInfo="built from the Debian source package %s %s" % (package["source"], package["source_version"]),
            licenseComments="/usr/share/doc/%s/copyright in the image" % package["name"],
            primaryPackagePurpose="LIBRARY" if any(".so" in path for path in package["files"]) else "OTHER",
            **({"homepage": package["homepage"]} if package["homepage"] else {})))
    ids = {package["name"]: package["SPDXID"] for package in packages}
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", ids["hwgqd"])]
    relations += [(ids["hwgqd"], "DEPENDS_ON", ids[package["name"]]) for package in debian]
    relations += [(ids[owners.get(path, "hwgqd")], "CONTAINS", file["SPDXID"]) for path, file in files.items()]
    content = hashlib.sha256(json.dumps([packages, list(files.values())], sort_keys=True).encode()).hexdigest()
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    document = {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "hwgqd-%s-%s" % (version(), architecture),
                "documentNamespace": "https://spdx.org/spdxdocs/hwgqd-%s-%s-%s" % (version(), architecture, content[:32]),
                "creationInfo": {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)), "creators": ["Tool: hwgqd-docker-sbom"]},
                "packages": packages, "files": list(files.values()),
                "relationships": [{"spdxElementId": a, "relationshipType": kind, "relatedSpdxElement": b} for a, kind, b in relations]}
    with open(folder + PATH, "w") as stream:
        json.dump(document, stream, indent=1)
        stream.write("\n")
