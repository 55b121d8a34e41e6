"""Two real daemons behind nginx and behind HAProxy, with the examples in config/ (other ports): a rolling restart and a killed daemon
under load, and no request fails. The counts of requests are printed."""
import os
import signal
import subprocess
import urllib.request

from deploy import BUILD, CIFAR10, FOLDER, JPEG, ROOT, Load, check, run_groups, skip, tool, wait_for
from daemon import PATIENCE, Daemon, free_port, metrics

ROUNDS = 2
DRAIN_MS = 1200
TIMES = {"nginx.conf": (("next_upstream_timeout 5s;", "next_upstream_timeout 120s;"), ("connect_timeout 250ms;", "connect_timeout 60s;"),
                        ("read_timeout 15s;", "read_timeout 120s;")),
         "haproxy.cfg": (("timeout connect 1s\n", "timeout connect 60s\n    timeout check 60s\n"), ("timeout server 15s ", "timeout server 120s "),
                         ("timeout client 60s", "timeout client 120s"), ("timeout http-request 30s", "timeout http-request 120s"))}
LARGE = JPEG + bytes(300000)  # bytes after a JPEG's end are ignored; larger than the proxies' usual buffers


def start(port):
    return Daemon(BUILD, FOLDER, "--models", "cifar10=" + CIFAR10, "--workers", "1", "--listen", "127.0.0.1:%d" % port,
                  "--drain-delay-ms", str(DRAIN_MS))


def example(name, front, daemons):
    with open(os.path.join(ROOT, "config", name)) as stream:
        text = stream.read()
    for old, new in ((8080, front), (8081, daemons[0]), (8082, daemons[1])):
        assert text.count("127.0.0.1:%d" % old) == 1, (name, old)
        text = text.replace("127.0.0.1:%d" % old, "127.0.0.1:%d" % new)
    # A busy machine may take longer than a service should.
    for old, new in TIMES[name]:
        assert text.count(old) == 1, (name, old)
        text = text.replace(old, new)
    path = os.path.join(FOLDER, name)
    with open(path, "w") as stream:
        stream.write(text)
    return path


def nginx_command(front, daemons):
    site = example("nginx.conf", front, daemons)
    main = os.path.join(FOLDER, "nginx-main.conf")
    with open(main, "w") as stream:
        stream.write("daemon off;\nworker_processes 1;\npid %s/nginx.pid;\nerror_log stderr;\n" % FOLDER)
        stream.write("user root;\n" if os.getuid() == 0 else "")
        stream.write("events { worker_connections 512; }\nhttp {\naccess_log off;\n")
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            stream.write("%s_temp_path %s/%s;\n" % (kind, FOLDER, kind))
        stream.write("include %s;\n}\n" % site)
    return [tool("nginx"), "-p", FOLDER, "-e", "stderr", "-c", main]


def haproxy_command(front, daemons):
    return [tool("haproxy"), "-db", "-f", example("haproxy.cfg", front, daemons)]


class Proxy:
    def __init__(self, command, check_flag, port):
        self.port = port
        self.log = open(os.path.join(FOLDER, os.path.basename(command[0]) + ".log"), "w+")
        result = subprocess.run(command + [check_flag], capture_output=True, text=True, timeout=PATIENCE)
        check("%s accepts the example" % command[0].split("/")[-1], result.returncode == 0 and "warn" not in result.stderr.lower(), result)
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def status(self, path="/readyz"):
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.port, path), timeout=PATIENCE) as reply:
                return reply.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def tail(self):
        self.log.seek(0)
        return "".join(line for line in self.log if "error" in line or "WARN" in line or "ALERT" in line)[-1200:]

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()


def served(daemon):
    return sum(value for key, value in metrics(daemon.get("/metrics").body.decode()).items()
               if key.startswith('hwgqd_requests_total{model="cifar10",code="200"'))


def rolling(name, make_command, check_flag):
    if not tool(name):
        skip("%s is not there (config/install-packages.sh test fetches it)" % name)
        return
    front, *ports = [free_port() for _ in range(3)]
    daemons = [start(port) for port in ports]
    proxy = Proxy(make_command(front, ports), check_flag, front)
    try:
        check("%s serves" % name, wait_for(lambda: proxy.status() == 200))
        check("%s hides the statistics of one daemon" % name, proxy.status("/metrics") == proxy.status("/stats") == 404)
        with Load(front, 6, JPEG, "image/jpeg", keep=20, pause=0.01) as small, \
                Load(front, 2, LARGE, "image/jpeg", keep=20, pause=0.02) as large:
            check("%s uses both daemons" % name, wait_for(lambda: all(served(daemon) > 10 for daemon in daemons)))
            for _ in range(ROUNDS):
                for i in (0, 1):
                    check("a drained daemon exits with 0", daemons[i].stop() == 0, daemons[i].log())
                    daemons[i] = start(ports[i])
                    back = wait_for(lambda: served(daemons[i]) > 10)
                    check("%s uses the new daemon" % name, back)
            wait_for(lambda: all(load.seen.get(200, 0) > 50 for load in (small, large)))
            rolled = dict(small.seen), dict(large.seen), max(small.slowest, large.slowest)
            # A daemon that dies in the middle of its work: the proxy sends those requests to the other one.
            daemons[0].signal(signal.SIGKILL)
            daemons[0].kill()
            done = served(daemons[1])
            check("%s uses the other daemon" % name, wait_for(lambda: served(daemons[1]) > done + 20))
            daemons[0] = start(ports[0])
            check("%s uses a daemon again that died" % name, wait_for(lambda: served(daemons[0]) > 10))
        print("%s: rolling restart x %d: small %s, large %s, slowest %.2f s; with a killed daemon: small %s, large %s, slowest %.2f s" %
              (name, ROUNDS, *rolled, small.seen, large.seen, max(small.slowest, large.slowest)))
        for what, before, seen, clients in (("small", rolled[0], small.seen, 6), ("large", rolled[1], large.seen, 2)):
            check("%s: no %s request failed in the restarts" % (name, what), set(before) == {200} and before[200] > 50, (before, proxy.tail()))
            # A restart loses nothing; a crash may lose what the daemon had, at most one request of each client: HAProxy 2.6 does not
            # send a request again whose connection was reset, as that of a killed daemon with unread data is, and it may ask the dead
            # daemon until a request has no retries left, when that is faster than its health check.
            lost = sum(count for status, count in seen.items() if status != 200)
            check("%s: %d of %s requests failed when a daemon was killed" % (name, lost, what), lost <= clients and
                  set(seen) <= {200, 502, 503, 504, "RemoteDisconnected", "ConnectionResetError"}, (seen, proxy.tail()))
    finally:
        proxy.stop()
        for daemon in daemons:
            daemon.stop()


def nginx():
    rolling("nginx", nginx_command, "-t")


def haproxy():
    rolling("haproxy", haproxy_command, "-c")


def without_proxy():
    """The same load on a daemon that is restarted has failures: the clients of this test see them."""
    port = free_port()
    daemon = start(port)
    with Load(port, 6, JPEG, "image/jpeg", keep=20, pause=0.01) as load:
        wait_for(lambda: load.seen.get(200, 0) > 10)
        daemon.stop()
        wait_for(lambda: len(load.seen) > 1)
    check("requests to a daemon that is gone fail", len(load.seen) > 1, load.seen)


run_groups(nginx, haproxy, without_proxy)
