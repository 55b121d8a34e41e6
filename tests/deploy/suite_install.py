"""`make install` into an empty folder: the programs run there, the shared library exports hwgq.h and nothing else, the example compiles
against it and agrees with `hwgq classify`, man pages and completion know every flag, and `make uninstall` leaves nothing."""
import json
import os
import random
import re
import struct
import subprocess
import zlib

from deploy import BUILD, FOLDER, ROOT, check, run_groups, skip, tool
from daemon import Daemon

DEST = os.path.join(FOLDER, "root")
PREFIX = os.path.join(DEST, "opt/hwgq")
LIB, SHARE = os.path.join(PREFIX, "lib"), os.path.join(PREFIX, "share")
with open(os.path.join(BUILD, "flags")) as stream:
    CC = stream.read().split()[0]


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def make(target):
    return run("make", target, "BUILD=" + BUILD, "CC=" + CC, "DESTDIR=" + DEST, "PREFIX=/opt/hwgq",
               env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")})


def tree():
    return {os.path.relpath(os.path.join(folder, name), PREFIX) for folder, _, names in os.walk(DEST) for name in names}


def program(name):
    return os.path.join(PREFIX, "bin", name)


def install():
    result = make("install")
    check("make install", result.returncode == 0, result.stdout + result.stderr)
    files = tree()
    wanted = {"bin/hwgqd", "bin/hwgq", "include/hwgq.h", "lib/libhwgq.a", "lib/libhwgq.so", "lib/libhwgq.so.0", "lib/pkgconfig/hwgq.pc",
              "share/man/man1/hwgq.1", "share/man/man5/hwgqd.json.5", "share/man/man8/hwgqd.8", "share/hwgqd/examples/embed.c",
              "share/bash-completion/completions/hwgqd", "share/bash-completion/completions/hwgq", "share/hwgqd/config/hwgqd.service",
              "share/hwgqd/config/prometheus/alerts.yml", "share/hwgqd/config/grafana/hwgqd.json", "share/hwgqd/models/zoo/cifar10.hwgq"}
    check("every file", wanted <= files and not any(name.startswith("..") for name in files), (wanted - files, files))
    modes = {name: os.stat(os.path.join(PREFIX, name)).st_mode & 0o777 for name in files}
    check("modes", all(mode == (0o755 if name.startswith("bin/") else mode & 0o755 | 0o644) for name, mode in modes.items()), modes)
    with open(os.path.join(SHARE, "hwgqd/config/hwgqd.service")) as stream:
        service = stream.read()
    check("the unit starts the installed program", "ExecStart=/opt/hwgq/bin/hwgqd --config /opt/hwgq/share/hwgqd/config/hwgqd.json\n" in service and
          "/usr/local" not in service)
    result = run(program("hwgqd"), "--check", "--config", os.path.join(SHARE, "hwgqd/config/hwgqd.json"))
    check("the installed configuration finds its networks", result.returncode == 0 and "cifar10" in result.stdout, result)
    with Daemon(os.path.join(PREFIX, "bin"), FOLDER, "--config", os.path.join(SHARE, "hwgqd/config/hwgqd.json")) as daemon:
        check("the installed daemon serves", len(daemon.get("/v1/models").json["models"]) == 3)
    check("and stops", daemon.exit_code == 0)


def declared():
    """The functions of hwgq.h."""
    with open(os.path.join(ROOT, "engine/hwgq.h")) as stream:
        text = re.sub(r"/\*.*?\*/", "", stream.read(), flags=re.S)
    return set(re.findall(r"\b(hwgq_\w+)\(", re.sub(r"typedef[^;]*;", "", text)))


def exported(path):
    lines = [line.split() for line in run("nm", "-D", "--defined-only", path).stdout.splitlines()]
    return {words[-1] for words in lines if words[-2] != "A"}


def library():
    names = exported(os.path.join(LIB, "libhwgq.so.0"))
    wanted = {name + "@@HWGQ_0" for name in declared()}
    check("the library exports hwgq.h and nothing else", names == wanted and len(names) > 40, names ^ wanted)
    dynamic = run("readelf", "-d", os.path.join(LIB, "libhwgq.so.0")).stdout
    check("soname", "Library soname: [libhwgq.so.0]" in dynamic, dynamic)
    needed = set(re.findall(r"NEEDED.*\[(\w+)", dynamic))
    check("it needs no image, HTTP or training library", needed <= {"libjansson", "libxxhash", "libm", "libc", "libpthread"}, needed)
    check("no executable stack, no text relocations", "TEXTREL" not in dynamic and
          not re.search(r"GNU_STACK.*RWE", run("readelf", "-lW", os.path.join(LIB, "libhwgq.so.0")).stdout))


def pixels_and_png(size):
    """Random RGB pixels, and the same as a PNG."""
    source = random.Random(5)
    pixels = bytes(source.randrange(256) for _ in range(size * size * 3))
    rows = b"".join(b"\0" + pixels[y * size * 3:(y + 1) * size * 3] for y in range(size))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return pixels, (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)) +
                    chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def embed():
    environment = dict(os.environ, PKG_CONFIG_PATH=os.path.join(LIB, "pkgconfig"))
    flags = run("pkg-config", "--define-variable=prefix=" + PREFIX, "--define-variable=libdir=" + LIB, "--cflags", "--libs", "hwgq",
                env=environment)
    check("pkg-config", flags.returncode == 0 and "-lhwgq" in flags.stdout and "jansson" not in flags.stdout, flags)
    version = run("pkg-config", "--modversion", "hwgq", env=environment).stdout.strip()
    check("its version is the program's", version and version in run(program("hwgq"), "--version").stdout, version)
    static = run("pkg-config", "--static", "--define-variable=prefix=" + PREFIX, "--define-variable=libdir=" + LIB, "--libs", "hwgq",
                 env=environment)
    pixels, png = pixels_and_png(32)
    with open(os.path.join(FOLDER, "image.png"), "wb") as stream:
        stream.write(png)
    model = os.path.join(SHARE, "hwgqd/models/zoo/cifar10.hwgq")
    answer = run(program("hwgq"), "classify", "--json", model, os.path.join(FOLDER, "image.png"))
    wanted = [(p["label"], p["probability"]) for p in json.loads(answer.stdout)["predictions"]]
    source = os.path.join(SHARE, "hwgqd/examples/embed.c")
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    for what, libraries in (("shared", flags.stdout.split()),
                            ("static", ["-I" + os.path.join(PREFIX, "include")] + static.stdout.replace("-lhwgq", "-l:libhwgq.a").split())):
        binary = os.path.join(FOLDER, "embed-" + what)
        result = run(CC, *strict, source, "-o", binary, *libraries)
        if not check("embed.c compiles, %s library" % what, result.returncode == 0, result):
            continue
        linked = run("ldd", binary, env=dict(os.environ, LD_LIBRARY_PATH=LIB)).stdout
        check("embed.c uses the %s library" % what, ("libhwgq.so.0 => " + LIB in linked) == (what == "shared"), linked)
        result = subprocess.run([binary, model], input=pixels, capture_output=True, timeout=300, env=dict(os.environ, LD_LIBRARY_PATH=LIB))
        got = [line.split(" ", 1) for line in result.stdout.decode().splitlines()]
        check("embed.c agrees with hwgq classify, %s library" % what, len(got) == 5 and
              all(label == name and abs(float(value) - probability) < 1e-7 for (value, label), (name, probability) in zip(got, wanted)),
              (result, wanted))
        result = subprocess.run([binary, source], input=pixels, capture_output=True, timeout=300, env=dict(os.environ, LD_LIBRARY_PATH=LIB))
        check("embed.c says what is wrong", result.returncode == 1 and b"embed.c" in result.stderr, result)
    with open(source) as stream:
        body = stream.read()
    check("embed.c is short", body[body.index("int main"):].count("\n") <= 32)
    # What hwgq.h does not declare cannot be linked with.
    with open(os.path.join(FOLDER, "inside.c"), "w") as stream:
        stream.write("int plan_build(void); int main(void) { return plan_build(); }\n")
    result = run(CC, os.path.join(FOLDER, "inside.c"), "-o", os.path.join(FOLDER, "inside"), *flags.stdout.split())
    check("internal functions are hidden", result.returncode != 0 and "plan_build" in result.stderr, result)


def page(name):
    """A man page as text, without formatting."""
    text = run("mandoc", "-Tascii", os.path.join(SHARE, "man", "man" + name[-1], name)).stdout
    return re.sub(r".\b", "", re.sub("_\b", "", text)) if "\b" not in text else re.sub(".\b", "", text)


def long_options(text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


def manual():
    if not tool("mandoc"):
        skip("mandoc is not there (config/install-packages.sh test installs it)")
        return
    for name in ("hwgq.1", "hwgqd.json.5", "hwgqd.8"):
        path = os.path.join(SHARE, "man", "man" + name[-1], name)
        result = run("mandoc", "-Tlint", "-W", "warning", path)
        check("mandoc -Tlint " + name, result.returncode == 0 and not result.stdout, result.stdout)
        if tool("man"):
            result = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", path, env=dict(os.environ, LC_ALL="C.UTF-8"))
            check("man --warnings " + name, result.returncode == 0 and not result.stderr, result.stderr)
    missing = long_options(run(program("hwgqd"), "--help").stdout) - long_options(page("hwgqd.8"))
    check("hwgqd.8 has every flag", not missing, missing)
    text = page("hwgq.1")
    commands = re.findall(r"^  ([a-z]+) ", run(program("hwgq"), "--help").stdout, re.M)
    check("hwgq has its commands", len(commands) >= 10, commands)
    for command in commands:
        start = re.search(r"^   hwgq %s( caffe)?$" % command, text, re.M)
        if not check("hwgq.1 has %s" % command, start):
            continue
        section = re.split(r"^(?:   hwgq |[A-Z])", text[start.end():], maxsplit=1, flags=re.M)[0]
        missing = long_options(run(program("hwgq"), command, "--help").stdout) - long_options(section)
        check("hwgq.1 has every option of %s" % command, not missing, missing)
    with open(os.path.join(ROOT, "config/hwgqd.schema.json")) as stream:
        properties = json.load(stream)["properties"]
    text = page("hwgqd.json.5")
    for key, value in properties.items():
        entry = re.search(r"^     %s: .*\n(?:(?:             .*)?\n)*" % key, text, re.M)
        if key == "$schema" or not check("hwgqd.json.5 has %s" % key, entry):
            continue
        entry = " ".join(entry.group(0).split())
        check("hwgqd.json.5 has the default of %s" % key, "default" not in value or "Default: %s." % value["default"] in entry, entry)


def completion():
    def complete(name, *words):
        script = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _%s; printf "%%s\\n" "${COMPREPLY[@]}"' % name
        result = run("bash", "-c", script, os.path.join(SHARE, "bash-completion/completions", name), program(name), *words, cwd=FOLDER)
        check("completion of %s %s is quiet" % (name, words), not result.stderr, result.stderr)
        return set(result.stdout.split())
    check("hwgqd --queue", complete("hwgqd", "--queue") == {"--queue-capacity", "--queue-deadline-ms"})
    check("hwgqd --log-format", complete("hwgqd", "--log-format", "") == {"auto", "text", "json"}, complete("hwgqd", "--log-format", ""))
    check("hwgqd --idle-workers", complete("hwgqd", "--idle-workers", "s") == {"sleep"})
    check("hwgqd --config", "image.png" in complete("hwgqd", "--config", "im"))
    check("hwgq", complete("hwgq", "in") == {"inspect"} and complete("hwgq", "") > {"train", "bench"}, complete("hwgq", ""))
    check("hwgq bench", complete("hwgq", "bench", "--form") == {"--form"})
    check("hwgq import", complete("hwgq", "import", "s") == {"safetensors"})
    check("hwgq classify", "image.png" in complete("hwgq", "classify", "im"))


def uninstall():
    result = make("uninstall")
    check("make uninstall leaves nothing", result.returncode == 0 and not tree(), (result, tree()))


run_groups(install, library, embed, manual, completion, uninstall)
