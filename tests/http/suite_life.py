"""The life of a daemon: draining and reloading under load.
suite_life.py BUILD_DIR FIXTURES (see run.sh). Every group of checks has a daemon of its own."""
import json
import shutil
import signal
import threading

from harness import *


def drain_under_load():
    """SIGTERM while clients hammer: whoever was connected gets an answer; then connections are refused; exit code 0."""
    daemon = Daemon(BUILD, FOLDER, *BOTH, "--drain-delay-ms", "1000")
    stop, lost, answered, refused = threading.Event(), [], [], []
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(JPEG)

    def client(i):
        keep = i % 2 == 0
        while not stop.is_set():
            try:
                connection = daemon.connect()
            except OSError:
                refused.append(i)
                return
            with connection:
                for turn in range(20 if keep else 1):
                    reply = b""
                    try:
                        connection.sendall(head + (b"" if keep else b"Connection: close\r\n") + b"\r\n" + JPEG)
                        while b"}}\n" not in reply:
                            piece = connection.recv(65536)
                            if not piece:
                                break
                            reply += piece
                    except OSError as problem:
                        if turn and not reply:  # the server closed the idle connection: HTTP lets a client try again
                            break
                        lost.append((i, repr(problem)))
                        return
                    if turn and not reply:
                        break
                    if not reply.startswith(b"HTTP/1.1 200") or b"}}\n" not in reply:
                        lost.append((i, reply))
                        return
                    answered.append(i)
                    if b"Connection: close" in reply:
                        break
    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    check("there is load", until(lambda: len(answered) > 20 or lost), (len(answered), lost[:3]))
    daemon.signal(signal.SIGTERM)
    code = daemon.wait()
    stop.set()
    for thread in threads:
        thread.join()
    check("exit code 0 after SIGTERM", code == 0, daemon.log()[-2000:])
    check("nothing accepted was lost", not lost, lost[:3])
    check("it ended by refusal", len(refused) == 8, len(refused))


def drain_finishes():
    """What waits in the queue and what is still being uploaded when SIGTERM comes is finished."""
    daemon = Daemon(BUILD, FOLDER, *SLOW)
    with Busy(daemon) as busy, daemon.connect() as upload:
        upload.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG[:100])
        queued = [Later(lambda: daemon.post("/classify?top_k=1", JPEG)) for _ in range(3)]
        check("five requests are on their way", until(lambda: sample(daemon, "hwgqd_requests_in_flight") == 5) and waiting(daemon, 3))
        daemon.signal(signal.SIGTERM)

        def refused():
            try:
                daemon.connect().close()
            except OSError:
                return True
            return False
        check("new connections are refused", until(refused))
        upload.sendall(JPEG[100:])
        busy.release()
        check("an upload that had begun is answered", read_all(upload).startswith(b"HTTP/1.1 200"))
        results = [one.result().status for one in queued]
    check("everything in the queue is answered", results == [200] * 3, results)
    check("exit code 0", daemon.wait() == 0, daemon.log()[-2000:])


def drain_delay():
    """Meanwhile it serves, but says that it is not ready; an interrupt ends it."""
    daemon = Daemon(BUILD, FOLDER, *BOTH, "--drain-delay-ms", "3600000")
    daemon.signal(signal.SIGTERM)
    check("not ready while draining", until(lambda: daemon.get("/readyz").status == 503))
    error("draining", daemon.get("/readyz"), 503, "draining")
    check("alive while draining", daemon.get("/healthz").status == 200)
    check("still serving while draining", daemon.post("/classify", JPEG).status == 200)
    check("draining is logged", until(lambda: any(e["message"] == "draining" for e in daemon.events())))
    daemon.signal(signal.SIGINT)
    check("an interrupt while draining ends at once", daemon.wait() == 130, daemon.log())
    daemon = Daemon(BUILD, FOLDER, *BOTH, "--drain-delay-ms", "3600000")
    daemon.signal(signal.SIGINT)
    check("the first interrupt drains without the delay", daemon.wait() == 0, daemon.log())


def reload():
    path, model = fixture("reload.json"), fixture("live.hwgq")

    def configure(**keys):
        with open(path, "w") as stream:
            json.dump(keys, stream)
    shutil.copy(COLOR, model)
    configure(models={"live": model})
    with Daemon(BUILD, FOLDER, "--config", path) as daemon:
        first = predictions_of(daemon, JPEG)
        check("a reload without change", reloaded(daemon, signal.SIGHUP, "reloaded") and daemon.get("/v1/models/live").json["version"] == "1" and
              predictions_of(daemon, JPEG) == first)
        shutil.copy(fixture("other.hwgq"), model)
        stop, codes = threading.Event(), []

        def hammer():
            while not stop.is_set():
                codes.append(daemon.post("/classify", JPEG).status)
        thread = threading.Thread(target=hammer)
        thread.start()
        check("a new file is taken", reloaded(daemon, signal.SIGHUP, "reloaded"))
        one = daemon.get("/v1/models/live").json
        second = predictions_of(daemon, JPEG)
        check("with a new version", one["version"] == "2" and second != first and daemon.post("/classify", JPEG).json["version"] == "2", one)
        with open(model, "wb") as stream:
            stream.write(b"rubbish")
        check("a bad file is reported", reloaded(daemon, signal.SIGHUP, "reload failed"))
        one = daemon.get("/v1/models/live").json
        check("and the old network goes on", predictions_of(daemon, JPEG) == second and one["version"] == "2" and
              "live.hwgq" in one["reload_error"], one)
        configure(models={"live": COLOR, "more": GRAY}, default_model="more", workers=7)
        check("another list", reloaded(daemon, signal.SIGHUP, "reloaded"))
        check("is served", [(m["name"], m["default"]) for m in daemon.get("/v1/models").json["models"]] ==
              [("live", False), ("more", True)])
        check("and its error is gone", "reload_error" not in daemon.get("/v1/models/live").json)
        check("what needs a restart is named", [e for e in daemon.events() if e.get("needs_restart") == "workers"])
        stop.set()
        thread.join()
        check("no request failed meanwhile", set(codes) == {200} and len(codes) > 3, set(codes))
        with open(path, "w") as stream:
            stream.write("{ nonsense")
        check("a bad configuration is reported", reloaded(daemon, signal.SIGHUP, "reload failed, networks and settings stay"))
        configure(models={"live": COLOR}, default_model="gone")
        check("an unknown default is reported", reloaded(daemon, signal.SIGHUP, "reload failed, networks and settings stay"))
        check("and everything stays", daemon.post("/v1/models/more/classify", JPEG).status == 200)
        configure(models={"live": COLOR, "fresh": model}, default_model="fresh")
        check("a default that cannot be loaded is reported", reloaded(daemon, signal.SIGHUP, "reload failed, networks and settings stay"))
        check("and the default stays", [m["name"] for m in daemon.get("/v1/models").json["models"] if m["default"]] == ["more"])
        configure(models={"live": COLOR})
        check("a network is taken away", reloaded(daemon, signal.SIGHUP, "reloaded") and daemon.post("/v1/models/more/classify", JPEG).status == 404)
        for what, path_of_more, version in (("the same", GRAY, "1"), ("another", COLOR, "2")):
            configure(models={"live": COLOR, "more": path_of_more})
            check("it comes back as %s network" % what, reloaded(daemon, signal.SIGHUP, "reloaded") and
                  daemon.get("/v1/models/more").json["version"] == version, daemon.get("/v1/models/more").body[:300])
            configure(models={"live": COLOR})
            check("and goes", reloaded(daemon, signal.SIGHUP, "reloaded"))
        check("the memory ceiling is logged after a reload", len([e for e in daemon.events() if e["message"].startswith("memory ceiling")])
              > 5)
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


def too_many_names():
    """The counts of a name are kept, so a daemon knows only so many names; the reload that brings one more changes nothing."""
    path = fixture("names.json")
    for models in ({"name-%d" % i: GRAY for i in range(256)}, {"one-more": GRAY}):
        with open(path, "w") as stream:
            json.dump({"models": models}, stream)
        if len(models) > 1:
            daemon = Daemon(BUILD, FOLDER, "--config", path)
    with daemon:
        daemon.signal(signal.SIGHUP)
        check("one name too many is refused", until(lambda: any("restart to forget" in e.get("error", "") for e in daemon.events())),
              daemon.log()[-600:])
        check("and everything stays", len(daemon.get("/v1/models").json["models"]) == 256 and
              daemon.post("/classify", JPEG).json["model"] == "name-0")
    check("exit code", daemon.exit_code == 0, daemon.log()[-2000:])


main(drain_under_load, drain_finishes, drain_delay, reload, too_many_names)
