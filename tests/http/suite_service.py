"""The daemon as a service: sandbox, service manager, traces, log, health probe. suite_service.py BUILD_DIR FIXTURES (see run.sh)."""
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import threading
import time

from harness import *

# The process becomes the daemon itself, so that LISTEN_PID is right: socket N is passed as descriptor 3.
ACTIVATE = 'exec 3<&"$FD"; [ "$FD" = 3 ] || eval "exec $FD<&-"; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'


def predictions(daemon, path="/classify"):
    reply = daemon.post(path, JPEG)
    return reply.json["predictions"] if reply.status == 200 else reply.body


# ---- sandbox ------------------------------------------------------------------------------------------------------------


def threads_of(daemon):
    """(NoNewPrivs, Seccomp_filters) of each thread."""
    found = []
    folder = "/proc/%d/task" % daemon.process.pid
    for task in os.listdir(folder):
        with open("%s/%s/status" % (folder, task)) as stream:
            fields = dict(line.split(":\t", 1) for line in stream.read().splitlines() if ":\t" in line)
        found.append((int(fields["NoNewPrivs"]), int(fields.get("Seccomp_filters", fields["Seccomp"]))))
    return found


def sandbox():
    result = run(HWGQD, *ONLY_COLOR, "--sandbox", "on", "--check")
    if result.returncode:
        check("--check says why not", "not possible here" in result.stderr, result)
        refused = run(HWGQD, *ONLY_COLOR, "--sandbox", "on", "--listen", "127.0.0.1:0")
        check("on does not start without it", refused.returncode == 1 and "sandbox" in refused.stderr, refused)
        skip("this kernel or container has no Landlock or seccomp")
        return
    check("--check says what there is", "sandbox (on): no_new_privs, Landlock " in result.stdout, result)
    with Daemon(BUILD, FOLDER, *ONLY_COLOR, "--sandbox", "off") as d:
        expected = predictions(d)
        check("off is off", all(thread == (0, 0) for thread in threads_of(d)) and
              [e["in_force"] for e in d.events() if e["message"] == "sandbox"] == ["off"], threads_of(d))
    models = fixture("sandbox-models")
    elsewhere = fixture("sandbox-elsewhere")
    for folder in (models, elsewhere):
        os.makedirs(folder, exist_ok=True)
    shutil.copy(fixture("color.hwgq"), os.path.join(models, "color.hwgq"))
    shutil.copy(fixture("gray.hwgq"), os.path.join(elsewhere, "gray.hwgq"))
    path = os.path.join(models, "hwgqd.json")

    def configure(**networks):
        with open(path, "w") as stream:
            json.dump({"models": networks, "default_model": "color", "sandbox": "on", "workers": 3}, stream)
    configure(color="color.hwgq")
    with Daemon(BUILD, FOLDER, "--config", path) as d:
        check("the same predictions from within", predictions(d) == expected)
        threads = threads_of(d)
        base = 0 if SANITIZED else 1
        check("no_new_privs for every thread", all(thread[0] == 1 for thread in threads), threads)
        check("a filter for each thread, one more for each of three workers",
              [thread[1] for thread in threads].count(base + 1) == 3 and {thread[1] for thread in threads} == {base, base + 1}, threads)
        said = [e["in_force"] for e in d.events() if e["message"] == "sandbox"]
        check("the log says what is in force", len(said) == 1 and re.match(r"no_new_privs, Landlock \d+, ", said[0]) and
              said[0].endswith("seccomp for workers"), said)
        check("many clients are served from within", [r for r in in_threads(16, lambda i: predictions(d)) if r != expected] == [])
        check("statistics of the process", b"process_open_fds" in d.get("/metrics").body and b"process_resident" in d.get("/metrics").body)
        shutil.copy(fixture("other.hwgq"), os.path.join(models, "color.hwgq.new"))
        os.replace(os.path.join(models, "color.hwgq.new"), os.path.join(models, "color.hwgq"))
        check("a reload reads a file that was replaced", reloaded(d, signal.SIGHUP) and predictions(d) != expected)
        shutil.copy(fixture("gray.hwgq"), os.path.join(models, "late.hwgq"))
        configure(color="color.hwgq", late="late.hwgq")
        check("and one that is new in the folder", reloaded(d, signal.SIGHUP) and d.get("/v1/models/late").status == 200)
        if not SANITIZED:
            configure(color="color.hwgq", gray=os.path.join(elsewhere, "gray.hwgq"))
            reloaded(d, signal.SIGHUP)
            check("but none elsewhere", d.get("/v1/models/gray").status == 404 and any(e["message"].startswith("sandbox: this lies in no folder") and
                  e["path"].endswith("gray.hwgq") for e in d.events()), d.log()[-600:])
        check("and it goes on", d.post("/classify", JPEG).status == 200)
    check("exit code", d.exit_code == 0, d.log()[-2000:])
    with Daemon(BUILD, FOLDER, *ONLY_COLOR) as d:
        said = [e["in_force"] for e in d.events() if e["message"] == "sandbox"]
        check("try is the default", len(said) == 1 and ("sanitizers" if SANITIZED else "seccomp for workers") in said[0], said)


# ---- service manager ----------------------------------------------------------------------------------------------------


class Manager:
    """The datagram socket of a service manager."""

    def __init__(self, name):
        self.path = fixture(name)
        if os.path.exists(self.path):
            os.remove(self.path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.messages = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        self.socket.settimeout(None)
        while True:
            text = self.socket.recv(4096).decode()
            self.messages.append((time.monotonic(), dict(line.split("=", 1) for line in text.split("\n"))))

    def having(self, key):
        return [m for _, m in self.messages if key in m]


def notifications():
    manager = Manager("notify")
    environment = dict(os.environ, NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="300000")
    path = fixture("notify.json")
    with open(path, "w") as stream:
        json.dump({"models": {"color": fixture("color.hwgq")}}, stream)
    with Daemon(BUILD, FOLDER, "--config", path, env=environment) as d:
        check("READY=1 once it serves", until(lambda: manager.having("READY")) and d.get("/readyz").status == 200 and
              manager.having("READY")[0]["STATUS"] == "serving", manager.messages)
        check("WATCHDOG=1, without clients", until(lambda: len(manager.having("WATCHDOG")) >= 5), manager.messages)
        pings, seconds = len(manager.having("WATCHDOG")), manager.messages[-1][0] - manager.messages[0][0]
        check("twice as often as asked, and no more (%d in %.2f s)" % (pings, seconds), pings <= seconds / 0.15 + 2, pings)
        in_threads(4, lambda i: [d.post("/classify", JPEG) for _ in range(20)])
        d.signal(signal.SIGHUP)
        check("RELOADING=1 with the time, then READY=1", until(lambda: len(manager.having("READY")) == 2), manager.messages[-3:])
        reloading = manager.having("RELOADING")[0]
        check("the time is the clock's", abs(int(reloading["MONOTONIC_USEC"]) / 1e6 - time.clock_gettime(time.CLOCK_MONOTONIC)) < 30, reloading)
        with open(path, "w") as stream:
            stream.write("{ nonsense")
        d.signal(signal.SIGHUP)
        check("a reload that failed is said", until(lambda: len(manager.having("READY")) == 3) and
              "failed" in manager.having("READY")[2]["STATUS"], manager.messages[-3:])
        d.stop()
        check("STOPPING=1 last", until(lambda: manager.having("STOPPING")) and d.exit_code == 0, manager.messages[-3:])
        states = [key for _, m in manager.messages for key in m if key not in ("WATCHDOG", "STATUS", "MONOTONIC_USEC")]
        check("in order", states == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"], states)
    with Daemon(BUILD, FOLDER, *ONLY_COLOR, env=dict(os.environ, NOTIFY_SOCKET="/nonexistent/notify")) as d:
        check("a manager that is not there is a warning", until(lambda: any("NOTIFY_SOCKET" in e["message"] for e in d.events())) and
              d.get("/healthz").status == 200)


def held_thread():
    """An I/O thread that does not come around any more, which ptrace makes of one: the service manager hears nothing then."""
    seize, interrupt, detach, all_threads = 0x4206, 0x4207, 17, 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    manager = Manager("notify-held")
    with Daemon(BUILD, FOLDER, *ONLY_COLOR, "--io-threads", "2", "--workers", "1",
                env=dict(os.environ, NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="1000000")) as d:
        check("READY=1", until(lambda: manager.having("READY")))

        def pings(seconds=None, wanted=1):
            before = len(manager.having("WATCHDOG"))
            return until(lambda: len(manager.having("WATCHDOG")) >= before + wanted, seconds or PATIENCE)
        check("idle I/O threads are alive", pings(wanted=4))
        threads = [t for t in os.listdir("/proc/%d/task" % d.process.pid)
                   if any(name in open("/proc/%d/task/%s/wchan" % (d.process.pid, t)).read() for name in ("ep_poll", "epoll"))]
        if len(threads) != 2 or libc.ptrace(seize, int(threads[0]), None, None) != 0:
            skip("this machine does not let threads be held: %s" % (threads or os.strerror(ctypes.get_errno())))
            return
        libc.ptrace(interrupt, int(threads[0]), None, None)
        os.waitpid(int(threads[0]), all_threads)
        pings(0.6)  # one may be on its way
        check("no ping while one of two I/O threads stands still", not pings(2))
        libc.ptrace(detach, int(threads[0]), None, None)
        check("pings again when it goes on", pings(wanted=4))
    check("exit code", d.exit_code == 0, d.log()[-2000:])


def listening(family, address):
    if family == socket.AF_UNIX and os.path.exists(address):
        os.remove(address)
    made = socket.socket(family, socket.SOCK_STREAM)
    made.bind(address)
    made.listen(128)
    return made


def activated(made, *flags, **options):
    return Daemon(BUILD, FOLDER, *ONLY_COLOR, *flags, prefix=("sh", "-c", ACTIVATE, "sh"), pass_fds=(made.fileno(),),
                  env=dict(os.environ, FD=str(made.fileno())), **options)


def activation():
    made = listening(socket.AF_INET, ("127.0.0.1", 0))
    port = made.getsockname()[1]
    with activated(made) as d:
        check("a passed socket is served", d.port == port and d.post("/classify", JPEG).status == 200, (d.port, port))
    check("exit code", d.exit_code == 0, d.log()[-2000:])
    waiting = socket.create_connection(("127.0.0.1", port))  # nobody serves; the manager's socket keeps it
    waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    stop, answers = threading.Event(), []

    def client(_):
        while not stop.is_set():
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as c:
                c.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG)
                answers.append(read_all(c)[9:12])
    first = activated(made)
    check("a client that came while nobody served is served by the next", read_all(waiting).startswith(b"HTTP/1.1 200"))
    clients = threading.Thread(target=lambda: in_threads(6, client))
    clients.start()
    restarts = 4
    for _ in range(restarts):  # zero-downtime restarts: the old one ends, the next serves the same socket
        until(lambda: len(answers) > 20)
        second = activated(made)
        first.signal(signal.SIGTERM)
        check("the old one exits with 0", first.wait() == 0, first.log()[-1000:])
        first = second
        before = len(answers)
        until(lambda: len(answers) > before + 20)
    stop.set()
    clients.join()
    first.stop()
    check("no request lost in %d restarts (%d requests)" % (restarts, len(answers)), len(answers) > 50 and set(answers) == {b"200"},
          {a: answers.count(a) for a in set(answers)})
    made.close()
    path = fixture("activation.sock")
    made = listening(socket.AF_UNIX, path)
    with activated(made) as d:
        result = run("curl", "-sS", "--unix-socket", path, "-F", "image=@" + fixture("image-0.jpg"), "http://localhost/classify")
        check("a local socket is served", '"predictions"' in result.stdout, result)
    check("exit code, local", d.exit_code == 0, d.log()[-2000:])
    made.close()
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    result = subprocess.run(["sh", "-c", ACTIVATE, "sh", HWGQD, *ONLY_COLOR], pass_fds=(made.fileno(),), stderr=subprocess.PIPE, text=True,
                            env=dict(os.environ, FD=str(made.fileno())), timeout=PATIENCE)
    check("a socket that does not listen is refused", result.returncode == 1 and "no listening stream socket" in result.stderr, result)
    made.close()


def start_time():
    """From the start of the process to READY=1, with three networks: printed, as it is the machine that decides."""
    manager = Manager("start")
    networks = ["--models", "a=" + fixture("color.hwgq"), "--models", "b=" + fixture("other.hwgq"), "--models", "c=" + fixture("gray.hwgq")]
    if os.path.exists("models/zoo/cifar10.hwgq"):
        networks[:4] = ["--models", "models/zoo/cifar10.hwgq", "--models", "models/zoo/fashion-mnist.hwgq"]
    times = []
    for _ in range(3):
        del manager.messages[:]
        start = time.monotonic()
        with Daemon(BUILD, FOLDER, *networks, env=dict(os.environ, NOTIFY_SOCKET=manager.path)):
            until(lambda: manager.having("READY"))
            times.append(1000 * ([t for t, m in manager.messages if "READY" in m][0] - start))
    print("start to ready with three networks: median %.1f ms, best %.1f ms" % (statistics.median(times), min(times)))
    check("each was ready", len(times) == 3)


# ---- traces and log -----------------------------------------------------------------------------------------------------

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def traces():
    with Daemon(BUILD, FOLDER, *ONLY_COLOR) as d:
        parent = "00-%s-%s-01" % (TRACE, SPAN)
        reply = d.post("/classify", JPEG, headers={"traceparent": parent, "X-Request-Id": "traced"})
        match = re.fullmatch("00-%s-([0-9a-f]{16})-01" % TRACE, reply.headers["traceparent"])
        check("a trace goes on with a span of its own", match and match.group(1) != SPAN, reply.headers)
        check("and is logged", until(lambda: any(
            e.get("request_id") == "traced" and (e["trace_id"], e["span_id"], e["parent_id"]) == (TRACE, match.group(1), SPAN)
            for e in d.events())), d.log()[-400:])
        spans = {d.get("/healthz", {"traceparent": parent}).headers["traceparent"] for _ in range(50)}
        check("each request has its span", len(spans) == 50)
        for what, bad in [("version ff", "ff" + parent[2:]), ("upper case", parent.upper()), ("zero trace", parent.replace(TRACE, "0" * 32)),
                          ("zero span", parent.replace(SPAN, "0" * 16)), ("too long", parent + "-x"), ("too short", parent[:-1]), ("empty", "")]:
            got = d.get("/healthz", {"traceparent": bad}).headers["traceparent"]
            check("a new trace for a header that is wrong: " + what, re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", got) and TRACE not in got, got)
        raw = d.raw(("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\ntraceparent: %s\r\ntraceparent: %s\r\n\r\n" % (parent, parent)).encode())
        check("... and for two of them", TRACE.encode() not in raw and b"traceparent: 00-" in raw, raw)
        timing = dict(re.findall(r"(\w+);dur=([0-9.]+)", reply.headers["Server-Timing"]))
        stages = [float(timing[name]) for name in ("queue", "decode", "preprocess", "inference")]
        check("Server-Timing has the stages of timing_ms", list(timing) == ["queue", "decode", "preprocess", "inference", "total"] and
              {k: float(v) for k, v in timing.items()} == reply.json["timing_ms"] and sum(stages) <= float(timing["total"]) + 0.003, timing)
        check("no Server-Timing without work", d.get("/healthz").headers["Server-Timing"] is None)


def log_level():
    with Daemon(BUILD, FOLDER, *ONLY_COLOR, "--log-level", "warning") as d:
        def logged(name, seconds=PATIENCE):
            d.get("/healthz", {"X-Request-Id": name})
            return until(lambda: any(e.get("request_id") == name for e in d.events()), seconds)
        check("a probe is not logged", not logged("quiet", 0.3))
        d.signal(signal.SIGUSR1)
        check("SIGUSR1: the level is logged", until(lambda: any(e.get("level") == "warning" and e["message"] == "log level" for e in d.events())))
        check("SIGUSR1: a probe is logged", logged("loud"))
        d.signal(signal.SIGUSR2)
        until(lambda: len([e for e in d.events() if e["message"] == "log level"]) == 2)
        check("SIGUSR2: as configured again", not logged("quiet-again", 0.3))
        check("every line is one JSON object", all(line.startswith("{") and json.loads(line) for line in d.log().split("\n")[:-1]))
        # What logrotate does with copytruncate: the daemon keeps no position of its own, and needs no signal.
        check("the log survives", d.post("/classify", JPEG).status == 200)
    path = fixture("level.json")
    with open(path, "w") as stream:
        json.dump({"models": {"color": fixture("color.hwgq")}, "log_level": "error"}, stream)
    with Daemon(BUILD, FOLDER, "--config", path) as d:
        with open(path, "w") as stream:
            json.dump({"models": {"color": fixture("color.hwgq")}, "log_level": "debug"}, stream)
        d.signal(signal.SIGHUP)
        check("a reload applies log_level", until(lambda: any(e["message"] == "reloaded" and "needs_restart" not in e for e in d.events())), d.log()[-300:])


def stalled_log():
    """Standard error is a pipe whose reader has stopped."""
    end, pipe = os.pipe()
    with Daemon(BUILD, FOLDER, *ONLY_COLOR, "--log-format", "json", wait=False, prefix=("sh", "-c", 'exec "$@" 2>&%d' % pipe, "sh"), pass_fds=(pipe,)) as d:
        check("it starts", until(lambda: os.path.exists(d.port_file) and read(d.port_file).endswith(b"\n")))
        d.port = int(read(d.port_file))

        def errors(_):
            with d.connect() as connection:
                for _ in range(40):
                    connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 40)
                    count = 0
                    while count < 40:
                        piece = connection.recv(1 << 20)
                        if not piece:
                            return False
                        count += piece.count(b"HTTP/1.1 404")
            return True
        check("every request is answered", in_threads(4, errors) == [True] * 4)
        check("lines were lost, and counted", sample(d, "hwgqd_lost_log_lines_total") > 0)
        text, written = [], lambda: b"log lines were lost" in b"".join(text)

        def drain():
            while True:
                piece = os.read(end, 1 << 16)
                if not piece:
                    return
                text.append(piece)
        reader = threading.Thread(target=drain)
        reader.start()

        def told():
            d.get("/nothing")
            return written()
        check("the log goes on when somebody reads, and tells", until(told))
        lost = sample(d, "hwgqd_lost_log_lines_total")
        os.close(pipe)
    check("exit code", d.exit_code == 0)
    reader.join()
    events = [json.loads(line) for line in b"".join(text).decode().splitlines()]
    check("every line is whole; how many are missing is said", sum(e.get("lost", 0) for e in events) == lost, lost)
    check("the end is logged", events[-1]["message"].startswith("stopped"), events[-1])
    os.close(end)
    end, pipe = os.pipe()
    with Daemon(BUILD, FOLDER, *ONLY_COLOR, "--log-level", "debug", "--log-format", "json", wait=False,
                prefix=("sh", "-c", 'exec "$@" 2>&%d' % pipe, "sh"), pass_fds=(pipe,)) as d:
        until(lambda: os.path.exists(d.port_file) and read(d.port_file).endswith(b"\n"))
        d.port = int(read(d.port_file))
        in_threads(4, errors)
        d.signal(signal.SIGTERM)
        check("SIGTERM ends it while nobody reads", d.wait() == 0)
    os.close(end)
    os.close(pipe)


def health():
    for listen, asked in [("127.0.0.1:0", "127.0.0.1:%d"), ("0.0.0.0:0", "0.0.0.0:%d"), ("localhost:0", "localhost:%d"), ("[::1]:0", "[::1]:%d"),
                          ("[::]:0", "[::]:%d")]:
        if ":" in listen[:-2] and not os.path.exists("/proc/net/if_inet6"):
            skip("no IPv6 here")
            continue
        with Daemon(BUILD, FOLDER, *ONLY_COLOR, "--listen", listen) as d:
            # It gives the daemon 2 seconds: on a busy machine once more.
            check("--health at " + listen, until(lambda: run(HWGQD, "--listen", asked % d.port, "--health").returncode == 0))
            check("--health by port file at " + listen,
                  until(lambda: run(HWGQD, "--listen", listen, "--port-file", d.port_file, "--health").returncode == 0))
            if listen != "127.0.0.1:0":
                continue
            d.signal(signal.SIGSTOP)
            until(lambda: "State:\tT" in open("/proc/%d/status" % d.process.pid).read())
            result = run(HWGQD, "--listen", asked % d.port, "--health")
            d.signal(signal.SIGCONT)
            check("--health of one that hangs", result.returncode == 1 and "2 seconds" in result.stderr, result)
    with Daemon(BUILD, FOLDER, *BOTH) as d:
        port = d.port
    check("--health of one that has ended", run(HWGQD, "--listen", "127.0.0.1:%d" % port, "--health").returncode == 1)


main(sandbox, notifications, held_thread, activation, start_time, traces, log_level, stalled_log, health)
