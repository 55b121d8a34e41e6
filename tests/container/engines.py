"""Docker, where a daemon answers; else buildah, as root, with util-linux to start what it built."""
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from checks import ROOT

BASE = "docker.io/library/debian:bookworm-slim"


def run(*command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more).stdout.strip()


def native():
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def revision():
    result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return "REVISION=" + result.stdout.strip()


class Server:
    """A started image: `url`, and what the engine says of its process."""

    def ready(self, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.running():
            try:
                with urllib.request.urlopen(self.url + "/readyz", timeout=10):
                    return True
            except OSError:
                time.sleep(0.02)
        return False

    def status(self, name):
        """A line of the process's /proc/PID/status."""
        with open("/proc/%d/status" % self.pid()) as stream:
            return [line.split()[1:] for line in stream if line.startswith(name + ":")][0]

    def root_is_read_only(self):
        with open("/proc/%d/mountinfo" % self.pid()) as stream:
            options = [line.split()[5] for line in stream if line.split()[4] == "/"]
        return options and options[-1].split(",")[0] == "ro"


class DockerServer(Server):
    def __init__(self, tag):
        port = free_port()
        self.url = "http://127.0.0.1:%d" % port
        self.id = run("docker", "run", "-d", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
                      "-p", "127.0.0.1:%d:8080" % port, tag)

    def running(self):
        return run("docker", "inspect", "-f", "{{.State.Running}}", self.id) == "true"

    def pid(self):
        return int(run("docker", "inspect", "-f", "{{.State.Pid}}", self.id))

    def health(self, test):
        return subprocess.run(["docker", "exec", self.id, *test]).returncode

    def log(self):
        return run("docker", "logs", self.id, stderr=subprocess.STDOUT)

    def stop(self):
        run("docker", "stop", "-t", "60", self.id)
        return int(run("docker", "inspect", "-f", "{{.State.ExitCode}}", self.id))

    def remove(self):
        run("docker", "rm", "-f", self.id)


class Docker:
    name = "docker"

    def __init__(self, folder):
        self.folder = folder

    def build(self, tag, architecture):
        run("docker", "build", "-q", "--platform", "linux/" + architecture, "--build-arg", revision(), "-f", "docker/Dockerfile", "-t", tag, ".",
            cwd=ROOT)

    def config(self, tag):
        return json.loads(run("docker", "inspect", tag))[0]["Config"]

    def root(self, tag):
        root = os.path.join(self.folder, tag)
        os.mkdir(root)
        container = run("docker", "create", tag)
        run("sh", "-c", "docker export %s | tar -x -C %s usr lib lib64 var 2>/dev/null || true" % (container, root))
        run("docker", "rm", container)
        return root

    def start(self, tag, _):
        return DockerServer(tag)


class ChrootServer(Server):
    """The image's command in mount and process namespaces of its own: root read-only, as its user, without rights to gain."""

    def __init__(self, root, config, emulator, log):
        port = free_port()
        self.url = "http://127.0.0.1:%d" % port
        self.root, self.user, self.port, self.emulator, self.path = root, config["User"], port, emulator, log
        self.output = open(log, "w")
        script = 'mount --bind "$0" "$0" && mkdir -p "$0/proc" && mount -t proc proc "$0/proc" && mount -o remount,bind,ro "$0" && exec "$@"'
        self.process = subprocess.Popen(["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-c", script, root,
                                         *self.inside(config["Entrypoint"] + ["--listen", "127.0.0.1:%d" % port])],
                                        stdout=self.output, stderr=self.output)

    def inside(self, command):
        return ["setpriv", "--no-new-privs", "chroot", "--userspec=" + self.user, "--groups=", self.root, *self.emulator, *command]

    def running(self):
        return self.process.poll() is None

    def pid(self):
        with open(glob.glob("/proc/%d/task/*/children" % self.process.pid)[0]) as stream:
            return int(stream.read().split()[0])

    def health(self, test):
        return subprocess.run(self.inside([word.replace(":8080", ":%d" % self.port) for word in test])).returncode

    def log(self):
        with open(self.path) as stream:
            return stream.read()

    def stop(self):
        os.kill(self.pid(), signal.SIGTERM)
        return self.process.wait(120)

    def remove(self):
        if self.running():
            self.process.kill()
            self.process.wait()
        self.output.close()


class Buildah:
    name = "buildah"

    def __init__(self, folder):
        self.folder, self.containers, self.roots = folder, [], {}
        if os.getuid():
            raise SystemExit("No Docker daemon answers here; building with buildah needs root.")
        os.environ.update(STORAGE_DRIVER="vfs", BUILDAH_ISOLATION="chroot")
        missing = [name for name in ("buildah", "debootstrap") if not shutil.which(name)]
        if missing:
            print("Installing", *missing, flush=True)
            run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        if subprocess.run(["buildah", "images", "-q", BASE], capture_output=True).returncode:
            print("Making the base image with debootstrap", flush=True)
            root = os.path.join(folder, "base")
            run("debootstrap", "--variant=minbase", "bookworm", root, stderr=sys.stdout)
            container = run("buildah", "from", "scratch")
            run("buildah", "add", "-q", container, root, "/")
            run("buildah", "commit", "-q", "--rm", container, BASE)
            shutil.rmtree(root)

    def build(self, tag, architecture):
        log = os.path.join(self.folder, tag + ".log")
        with open(log, "w") as stream:
            # BUILDPLATFORM: buildah 1.28 does not set it. Layers are kept, so that a second build installs no packages.
            result = subprocess.run(["buildah", "bud", "--layers", "--pull-never", "--format", "docker", "--network", "host",
                                     "--platform", "linux/" + architecture, "--build-arg", "BUILDPLATFORM=linux/" + native(),
                                     "--build-arg", revision(), "-f", "docker/Dockerfile", "-t", tag, "."],
                                    cwd=ROOT, stdout=stream, stderr=stream)
        if result.returncode:
            with open(log) as stream:
                raise RuntimeError(stream.read()[-3000:])

    def config(self, tag):
        return json.loads(run("buildah", "inspect", "--type", "image", tag))["Docker"]["config"]

    def root(self, tag):
        if tag not in self.roots:
            self.containers.append(run("buildah", "from", "--pull-never", tag))
            self.roots[tag] = run("buildah", "mount", self.containers[-1])
        return self.roots[tag]

    def start(self, tag, architecture):
        emulator = []
        root = self.root(tag)
        if architecture != native():
            program = {"arm64": "qemu-aarch64-static", "amd64": "qemu-x86_64-static"}[architecture]
            if not shutil.which(program):
                run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "qemu-user-static")
            shutil.copy(shutil.which(program), root)
            emulator = ["/" + program]
        return ChrootServer(root, self.config(tag), emulator, os.path.join(self.folder, tag + "-server.log"))

    def run_itself(self, tag, *arguments):
        """buildah's own way to start something in the image."""
        return subprocess.run(["buildah", "run", "--isolation", "chroot", "--user", "65532:65532", self.containers[list(self.roots).index(tag)], "--",
                               "/usr/local/bin/hwgqd", *arguments], capture_output=True, text=True)

    def index(self, tags):
        """A list of images for several architectures, as a registry gets it: its folder in the OCI layout."""
        name, folder = "hwgqd-list", os.path.join(self.folder, "list")
        subprocess.run(["buildah", "manifest", "rm", name], capture_output=True)
        run("buildah", "manifest", "create", name)
        for tag in tags:
            run("buildah", "manifest", "add", name, "containers-storage:localhost/%s:latest" % tag)
        run("buildah", "manifest", "push", "-q", "--all", name, "oci:" + folder)
        return folder

    def remove(self):
        for container in self.containers:
            subprocess.run(["buildah", "rm", container], capture_output=True)
