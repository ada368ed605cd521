"""Programs that reach for the machine, run past the linter on purpose: the worker's walls alone must hold.

``{home}`` and ``{port}`` stand for a folder with a secret and for a listening port of the trainer's machine.
"""

from tests.hostile.programs import first, pays

OS = "import os\n"
PRIVATE = "import sys\nexported = sys.modules['jax._src.export._export']\n"

WALLS = {
    "files": [
        (first("open('{home}/secret').read()"), ("load",)),
        (first("open('{home}/loot', 'w').write('x')"), ("load",)),
        (first("open('/tmp/loot-of-a-candidate', 'w')"), ("load",)),
        (first("open('/etc/passwd').read()"), ("load",)),
        (first("open('/proc/1/environ').read()"), ("load",)),
        (first(OS + "os.remove('{home}/secret')"), ("load",)),
        (first(OS + "os.rename('{home}/secret', '{home}/moved')"), ("load",)),
        (first(OS + "os.truncate('{home}/secret', 0)"), ("load",)),
        (first(OS + "os.symlink('{home}/secret', 'link')"), ("load",)),
        (first(OS + "os.chmod('{home}/secret', 0o777)"), ("load",)),
        (first(OS + "os.listdir('{home}')"), ("load",)),
        (first(OS + "os.mkdir('{home}/new')"), ("load",)),
        (first("import jax._src\nopen(jax._src.__file__, 'a').write('x')"), ("load",)),
        (first(OS + "os.memfd_create('x')"), ("load",)),
    ],
    "network": [
        (first("import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)"), ("load",)),
        (first("import socket\nsocket.socketpair()"), ("load",)),
        (first("import urllib.request as u\nu.urlopen('http://127.0.0.1:{port}', timeout=1)"), ("load",)),
        (first("import socket\nsocket.getaddrinfo('localhost', 80)[0][4]\nsocket.socket(socket.AF_UNIX)"), ("load",)),
    ],
    "environment": [
        (first(OS + "os.environ['RD_TEST_SECRET']"), ("load",)),
        (first(OS + "KEY = os.environ['HOME'] + os.environ['PATH']"), ("load",)),
    ],
    "processes": [
        (first(OS + "os.fork()"), ("load",)),
        (first("import subprocess\nsubprocess.run(['true'])"), ("load",)),
        (first(OS + "os.execv('/bin/true', ['true'])"), ("load",)),
        (first(OS + "os.posix_spawn('/bin/true', ['true'], {{}})"), ("load",)),
        (first(OS + "assert os.system('true') == 0"), ("load",)),
        (first(OS + "os.kill(os.getppid() or 1, 9)"), ("load",)),
        (first(OS + "os.killpg(0, 9)"), ("load",)),
        (first(OS + "os.setsid()"), ("load",)),
        (first(OS + "os.setuid(1)"), ("load",)),
        (first("import resource as r\nr.setrlimit(r.RLIMIT_FSIZE, (-1, -1))"), ("load",)),
        (
            first(
                "import threading\nwhile True:\n    threading.Thread(target=threading.Event().wait, daemon=True).start()"
            ),
            ("load", "memory", "time", "worker"),
        ),
        (first("import multiprocessing as m\nm.get_context('fork').Process(target=print).start()"), ("load",)),
        (first("import ctypes\nassert ctypes.CDLL(None, use_errno=True).ptrace(16, 1, 0, 0) == 0"), ("load",)),
        (first("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0"), ("load",)),
        (first("import ctypes\nassert ctypes.CDLL(None).syscall(425, 1, 0) >= 0"), ("load",)),
        (first("import ctypes\nassert ctypes.CDLL(None).syscall(317, 0, 0, 0) == 0"), ("load",)),
        (first("import fcntl\nfcntl.fcntl(3, fcntl.F_SETOWN, 1)"), ("load",)),
        (first("import fcntl\nfcntl.fcntl(3, 10, 9)"), ("load",)),
        (first("import fcntl, struct\nfcntl.fcntl(3, 15, struct.pack('ii', 1, 1))"), ("load",)),
        (first(OS + "os.sched_setaffinity(os.getppid() or 1, {{0}})"), ("load",)),
        (first(OS + "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))"), ("load",)),
        (first("import ctypes\nassert ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0"), ("load",)),
        (first("import ctypes\nassert ctypes.CDLL(None, use_errno=True).syscall(470) == 0"), ("load",)),
    ],
    "endings": [
        (first(OS + "os._exit(0)"), ("worker",)),
        (first("import sys\nsys.exit(0)"), ("load",)),
        (first("raise KeyboardInterrupt"), ("load",)),
        (first(OS + "os.abort()"), ("memory", "worker")),
        (first("import ctypes\nctypes.string_at(0)"), ("worker",)),
        (first("import sys\nsys.setrecursionlimit(10**9)\nf = lambda: f()\nf()"), ("worker", "memory", "load", "time")),
        (first("f = lambda: f()\nf()"), ("load",)),
    ],
    "endless": [
        (first("while True: pass"), ("time",)),
        (first("import time\ntime.sleep(1000)"), ("time",)),
        (first("import signal\nsignal.pthread_sigmask(0, range(1, 60))\nwhile True: pass"), ("time",)),
        (first("x = 3 ** (3 ** 20)"), ("time",)),
        (first("import re\nre.match('(a+)+b', 'a' * 60)"), ("time",)),
        (pays("jax.lax.while_loop(lambda c: c[0] < 1e9, lambda c: c, obs)[0]"), ("time", "export")),
        (first("import threading\nl = threading.Lock()\nl.acquire()\nl.acquire()"), ("time",)),
    ],
    "memory": [
        (first("x = bytearray(64 * 2**30)"), ("memory",)),
        (first("x = [0] * 10**10"), ("memory",)),
        (first("x = 'a'\nwhile True: x += x"), ("memory", "time")),
        (first("x = []\nwhile True: x.append(bytearray(2**24))"), ("memory", "time")),
        (first("import numpy as np\nx = np.ones(2**34)"), ("memory", "load")),
    ],
    "answers": [
        (
            first(OS + "for fd in range(3, 64):\n    try: os.write(fd, b'garbage')\n    except OSError: pass"),
            ("worker", "load"),
        ),
        (
            first(
                OS + "import json, struct\nm = json.dumps(dict(program='AAAA', used=['obs'], terms=[], memory=[], "
                "remainder=False, range=[0, 0])).encode()\nfor fd in range(3, 64):\n"
                "    try: os.write(fd, struct.pack('>I', len(m)) + m)\n    except OSError: pass\nos._exit(0)"
            ),
            ("verify", "worker"),
        ),
        (
            first(
                OS + "import struct\nfor fd in range(3, 64):\n    try: os.write(fd, struct.pack('>I', 2**31))\n"
                "    except OSError: pass\nos._exit(0)"
            ),
            ("worker",),
        ),
        (
            first(OS + "for fd in range(3, 64):\n    try: os.close(fd)\n    except OSError: pass"),
            ("worker", "load", "trace", "export", "smoke"),
        ),
        (
            first(
                PRIVATE + "import jax.export\nsafe = exported.DisabledSafetyCheck.custom_call('x')\n"
                "old = jax.export.export\njax.export.export = lambda f, **k: old(f, **{{**k, 'disabled_checks': [safe]}})"
            ),
            ("verify",),
        ),
        (
            first(
                "import jax.export\nold = jax.export.export\ndef new(f, **k):\n    def made(*a):\n        return "
                "old(jax.jit(lambda *x: (x[0][:, :2],)), **k)(*a)\n    return made\njax.export.export = new"
            ),
            ("verify", "smoke", "export", "worker"),
        ),
        (
            pays("obs[0]")
            + "import sys\nsys.modules['reward_design.llm.trials'].tried = lambda *a: dict(remainder=False, "
            "range=[0, 0])\nreward = (lambda old: lambda obs: jnp.linalg.cholesky(jnp.eye(4))[0, 0] + old(obs, 0, obs))(reward)\n",
            ("verify", "worker", "load"),
        ),
    ],
    "silence": [
        (first(OS + "import time\nos.closerange(3, 64)\ntime.sleep(1000)"), ("worker",)),
        (
            first(
                OS + "import json, struct\nm = json.dumps(dict(program='AAAA', used=['obs'], terms=[], memory=[], "
                "remainder=False, range=[10**400, 0])).encode()\nfor fd in range(3, 64):\n"
                "    try: os.write(fd, struct.pack('>I', len(m)) + m)\n    except OSError: pass\nos._exit(0)"
            ),
            ("worker",),
        ),
        (
            first(
                OS + "import json, struct\nm = json.dumps(dict(stage=['load'], reason=[[[7]]])).encode()\n"
                "for fd in range(3, 64):\n    try: os.write(fd, struct.pack('>I', len(m)) + m)\n"
                "    except OSError: pass\nos._exit(0)"
            ),
            ("worker",),
        ),
    ],
    "randomness": [
        (pays("__import__('random').random() + obs[0]"), ("determinism",)),
        (pays("__import__('time').time() % 1 + obs[0]"), ("determinism",)),
        (
            "import itertools\nN = itertools.count()\nfunctools.N = N = getattr(functools, 'N', N)\n"
            + pays("next(N) + obs[0]"),
            ("determinism",),
        ),
        (pays("jax.random.normal(jax.random.key(__import__('os').urandom(1)[0])) + obs[0]"), ("determinism",)),
        (pays("lax.rng_uniform(0.0, 1.0, ()) + obs[0]"), ("verify", "determinism")),
        (pays("lax.rng_bit_generator(jnp.zeros(4, 'uint32'), ())[1] + obs[0]"), ("verify",)),
    ],
    "callbacks": [
        (pays("jax.pure_callback(lambda x: x, obs[0], obs[0], vmap_method='sequential')"), ("export",)),
        (pays("jax.experimental.io_callback(print, obs[0], obs[0])"), ("trace", "export")),
        (first("").replace("    return", "    jax.debug.print('{{}}', obs)\n    return"), ("export", "trace")),
    ],
}
"""Program and the stages that may refuse it."""
