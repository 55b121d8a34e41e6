"""A real hwgqd on a free loopback port, and a client that shows every byte."""
import atexit
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import time

# Seconds that a test waits for what must come. It goes on at once when it comes, so this says nothing about how fast that is: the machine
# may be slow and busy.
PATIENCE = 120
# So that nothing is refused because the machine is slow; flags of a test that come later win.
PATIENT = ("--queue-deadline-ms", "600000", "--request-timeout-ms", "600000", "--idle-timeout-ms", "600000", "--max-decode-ms", "600000")


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """The error code of the reply, or None."""
        try:
            return self.json["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return None


class Daemon:
    """with Daemon(build, folder, "--models", ...) as d: d.get("/stats"). It ends with SIGTERM and must exit with 0.
    prefix: a command that runs the daemon in its own place (sh -c '...; exec "$@"' sh); popen: as for subprocess.Popen."""

    count = 0
    living = set()
    pause = 0.01  # seconds between looks at whether it is ready

    def __init__(self, build, folder, *flags, wait=True, prefix=(), **popen):
        Daemon.count += 1
        self.port_file = os.path.join(folder, "port-%d" % Daemon.count)
        self.log_path = os.path.join(folder, "log-%d" % Daemon.count)
        if os.path.exists(self.port_file):
            os.remove(self.port_file)
        self.log_file = open(self.log_path, "wb")
        self.process = subprocess.Popen(
            [*prefix, os.path.join(build, "hwgqd"), "--listen", "127.0.0.1:0", "--port-file", self.port_file, *PATIENT, *flags],
            stderr=self.log_file, **popen)
        Daemon.living.add(self)
        self.port = None
        self.exit_code = None
        end = time.monotonic() + PATIENCE
        self.quiet = quiet(flags)
        while wait and not (self.port is not None and self.ready()):
            try:
                with open(self.port_file) as stream:
                    text = stream.read()
                if text.endswith("\n"):
                    self.port = int(text)
            except FileNotFoundError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError("hwgqd did not start:\n" + self.log())
            time.sleep(self.pause)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def kill(self):
        self.process.kill()
        self.process.wait()
        Daemon.living.discard(self)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=PATIENCE):
        """Exit code; the process is killed when it takes longer, and the code is then None."""
        if self.exit_code is None:
            try:
                self.exit_code = self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                pass
            self.kill()
            self.log_file.close()
        return self.exit_code

    def stop(self):
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def log(self):
        with open(self.log_path, "rb") as stream:
            return stream.read().decode("utf-8", "replace")

    def events(self):
        whole = self.log().split("\n")[:-1]  # what follows the last line end is still being written
        return [json.loads(line) for line in whole if line.startswith("{")]

    def ready(self):
        """Whether its networks are loaded, which is after the port is there: it says so, if its log says such things."""
        if not self.quiet:
            return " serves" in self.log()
        try:
            return self.get("/readyz").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def url(self, path):
        return "http://127.0.0.1:%d%s" % (self.port, path)

    def request(self, method, path, body=None, headers=None, timeout=PATIENCE):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            reply = connection.getresponse()
            return Reply(reply.status, reply.headers, reply.read())
        finally:
            connection.close()

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, content_type="image/jpeg", headers=None, timeout=PATIENCE):
        return self.request("POST", path, body, dict(headers or {}, **{"Content-Type": content_type}), timeout)

    def form(self, path, parts, timeout=PATIENCE):
        """parts: (field, bytes) pairs."""
        body, content_type = form(parts)
        return self.post(path, body, content_type, timeout=timeout)

    def connect(self, timeout=PATIENCE):
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def raw(self, data):
        """Sends bytes, returns all bytes until the server closes: it must have a reason to."""
        with self.connect() as connection:
            try:
                connection.sendall(data)
            except OSError:
                pass
            return read_all(connection)


def quiet(flags):
    """Whether these flags, or the configuration file that they name, keep what is only worth knowing out of the log."""
    text = " ".join(flags)
    if "--config" in flags:
        with open(flags[flags.index("--config") + 1]) as stream:
            text += stream.read()
    return re.search(r'log[-_]level"?:? *"?(warning|error)', text) is not None


GIVEN = set()  # ports


@atexit.register
def kill_the_rest():
    """A test that broke between start and end leaves no daemon behind."""
    for daemon in list(Daemon.living):
        daemon.kill()


def read_all(connection):
    """All bytes until the server closes, which it does after Connection: close, among others."""
    received = b""
    try:
        while True:
            piece = connection.recv(65536)
            if not piece:
                return received
            received += piece
    except socket.timeout as problem:
        raise RuntimeError("the daemon keeps the connection open after %r" % received[-300:]) from problem
    except OSError:
        return received


def free_port():
    """A port that nobody listens on, and below those that the kernel gives to whoever asks for any (32768 and more)."""
    while True:
        port = random.SystemRandom().randrange(10000, 32000)
        if port not in GIVEN:
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            GIVEN.add(port)
            return port


def form(parts):
    boundary = "----hwgqd-test-boundary"
    pieces = []
    for field, content in parts:
        name = ' filename="x.jpg";' if len(content) > 40 else ""
        pieces.append(('--%s\r\nContent-Disposition: form-data;%s name="%s"\r\n\r\n' % (boundary, name, field)).encode())
        pieces += content, b"\r\n"
    pieces.append(("--%s--\r\n" % boundary).encode())
    return b"".join(pieces), "multipart/form-data; boundary=" + boundary


def metrics(text):
    """The samples of a Prometheus text, by name with labels; raises ValueError for what the format does not allow."""
    samples, types, helps, current = {}, {}, set(), None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            if name in helps:
                raise ValueError("two HELP lines for " + name)
            helps.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            if name in types:
                raise ValueError("two TYPE lines for " + name)
            types[name] = kind
            current = name
        elif line and not line.startswith("#"):
            key, value = line.rsplit(" ", 1)
            name = key.split("{")[0]
            if name != current and not (types.get(current) == "histogram" and name in
                                        (current + "_bucket", current + "_sum", current + "_count")):
                raise ValueError("sample outside of its family: " + line)
            if current not in helps:
                raise ValueError("no HELP for " + current)
            if types[current] == "counter" and not name.endswith("_total"):
                raise ValueError("counter without _total: " + name)
            if key in samples:
                raise ValueError("sample twice: " + key)
            samples[key] = float(value)
    if not text.endswith("\n"):
        raise ValueError("no line end at the end")
    return samples
