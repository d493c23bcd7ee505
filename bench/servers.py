"""The servers of bench/tail-latency: nginx, redis and PostgreSQL of Debian, each with TLS, on a port and in a folder of
their own. What the system runs of them is not touched.

A server has `pid`, `load(seconds)`, which returns a Result, and `stop()`.
"""

import collections
import glob
import os
import pwd
import re
import shutil
import signal
import socket
import statistics
import subprocess
import time

from common import HERE, run

CONNECTIONS = 8

# Latencies in us; `failed` counts requests.
Result = collections.namedtuple("Result", "requests p50 p99 p999 largest failed")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def await_port(port, process):
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{process.args[0]} does not listen on port {port}")
            time.sleep(0.05)


def certificate(d, user=None):
    """A key and a certificate of its own."""
    key, cert = os.path.join(d, "key.pem"), os.path.join(d, "cert.pem")
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert)
    if user:
        os.chown(key, user.pw_uid, user.pw_gid)
    os.chmod(key, 0o600)
    return key, cert


class Server:
    def start(self, argv, d, lib, **kwargs):
        self.log = open(os.path.join(d, "output"), "wb")
        self.process = subprocess.Popen(argv, env={**os.environ, "LD_LIBRARY_PATH": lib}, stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log, **kwargs)
        self.pid = self.process.pid
        await_port(self.port, self.process)

    def pids(self):
        """The server and all its children."""
        with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as f:
            return [self.pid, *map(int, f.read().split())]

    def stop(self):
        self.process.send_signal(self.STOP)
        self.process.wait()
        self.log.close()


class Nginx(Server):
    NEEDS = {"nginx": "nginx-light", "wrk": "wrk", "openssl": "openssl"}
    STOP = signal.SIGQUIT
    CONF = """
        daemon off; worker_processes 2; user www-data; pid {d}/pid; error_log {d}/error.log;
        events {{ worker_connections 256; }}
        http {{
            access_log off; keepalive_requests 100000000;
            client_body_temp_path {d}/t; proxy_temp_path {d}/t; fastcgi_temp_path {d}/t; uwsgi_temp_path {d}/t;
            scgi_temp_path {d}/t;
            server {{
                listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {key};
                location / {{ return 200 "{body}"; }}
            }}
        }}
    """

    def __init__(self, d, lib, close):
        self.port, self.close = free_port(), close
        key, cert = certificate(d)
        conf = os.path.join(d, "nginx.conf")
        with open(conf, "w", encoding="ascii") as f:
            f.write(self.CONF.format(d=d, port=self.port, key=key, cert=cert, body="0123456789abcdef" * 64))
        self.start([shutil.which("nginx"), "-p", d, "-c", conf, "-e", os.path.join(d, "error.log")], d, lib)

    def load(self, seconds):
        p = run("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "5s",
                "-s", os.path.join(HERE, "tail_latency.lua"), *(["-H", "Connection: close"] if self.close else []),
                f"https://127.0.0.1:{self.port}/")
        return Result(*map(int, re.search("result (.*)", p.stdout)[1].split()))


class Redis(Server):
    NEEDS = {"redis-server": "redis-server", "redis-benchmark": "redis-tools", "openssl": "openssl"}
    STOP = signal.SIGTERM
    per_second = 20000  # until it is known better

    def __init__(self, d, lib):
        self.port = free_port()
        key, cert = certificate(d)
        self.start([shutil.which("redis-server"), "--port", "0", "--tls-port", str(self.port), "--tls-cert-file", cert,
                    "--tls-key-file", key, "--tls-auth-clients", "no", "--bind", "127.0.0.1", "--save", "",
                    "--dir", d], d, lib)
        self.load(1)

    def load(self, seconds):
        """redis-benchmark runs for a number of requests: as many as it did in that time the last time."""
        n = int(self.per_second * seconds)
        start = time.monotonic()
        p = run("redis-benchmark", "-h", "127.0.0.1", "-p", str(self.port), "--tls", "--insecure", "-t", "get",
                "-c", str(CONNECTIONS), "-n", str(n), check=False)
        self.per_second = n / (time.monotonic() - start)
        steps = [(float(share), float(ms) * 1e3) for share, ms in
                 re.findall(r"^([0-9.]+)% <= ([0-9.]+) milliseconds \(cumulative", p.stdout, re.M)]
        if p.returncode or not steps:
            return Result(n, 0, 0, 0, 0, 1)
        return Result(n, *(next(us for share, us in steps if share >= wanted) for wanted in (50, 99, 99.9, 100)), 0)


class Postgres(Server):
    NEEDS = {"pgbench": "postgresql-contrib", "postgres": "postgresql", "initdb": "postgresql", "openssl": "openssl"}
    STOP = signal.SIGINT
    USER = "postgres"

    @staticmethod
    def program(name):
        found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
        return found[-1] if found else None

    def __init__(self, d, lib):
        user = pwd.getpwnam(self.USER)
        self.d, self.port = d, free_port()
        os.chown(d, user.pw_uid, user.pw_gid)
        key, cert = certificate(d, user)
        data = os.path.join(d, "data")
        self.demote = dict(user=user.pw_uid, group=user.pw_gid, extra_groups=[], cwd=d)
        run(self.program("initdb"), "-D", data, "-A", "trust", "-U", self.USER, "-N", **self.demote)
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": d, "ssl": "on",
                   "ssl_key_file": key, "ssl_cert_file": cert, "autovacuum": "off", "fsync": "off"}
        self.start([self.program("postgres"), "-D", data, *(f"--{k}={v}" for k, v in options.items())], d, lib,
                   **self.demote)
        self.client("-i", "-q")

    def client(self, *argv):
        env = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": self.USER,
               "PGDATABASE": "postgres", "PGSSLMODE": "require", "HOME": self.d}
        for _ in range(100):
            p = run(self.program("pgbench"), *argv, env=env, check=False, **self.demote)
            if "starting up" not in p.stderr:
                return p
            time.sleep(0.1)
        return p

    def load(self, seconds):
        """Every transaction is logged; its third column is its latency in microseconds."""
        p = self.client("-S", "-n", "-c", str(CONNECTIONS), "-T", str(seconds), "-l", "--log-prefix=transactions")
        us = []
        for path in glob.glob(os.path.join(self.d, "transactions.*")):
            with open(path, encoding="ascii") as f:
                us += [int(line.split()[2]) for line in f]
            os.unlink(path)
        if p.returncode or len(us) < 2:
            print(f"# pgbench: {p.stderr.strip()}")
            return Result(len(us), 0, 0, 0, 0, 1)
        cuts = statistics.quantiles(us, n=1000)
        failed = re.search(r"number of failed transactions: (\d+)", p.stdout)
        return Result(len(us), cuts[499], cuts[989], cuts[998], max(us), int(failed[1]) if failed else 0)


SERVERS = [("nginx, kept connections", Nginx, {"close": False}), ("nginx, a connection per request", Nginx, {"close": True}),
           ("redis", Redis, {}), ("postgres", Postgres, {})]


def missing(server):
    """What is not installed of a server: a sentence, or None."""
    for name, package in server.NEEDS.items():
        if not (shutil.which(name) or Postgres.program(name)):
            return f"{name} is not there: apt-get install {package}"
    return None
