"""What a program written for docker-py does. It prints what it saw; any
difference from what the library promises is an assertion that fails."""
import io
import os
import socket
import sys
import tarfile
import threading

import docker
from docker import errors

client = docker.DockerClient(base_url=os.environ["DOCKER_HOST"], version=sys.argv[1] if len(sys.argv) > 1 else "auto")
api = client.api
assert client.ping()
version = client.version()
assert version["ApiVersion"] and version["MinAPIVersion"], version
info = client.info()
assert info["ServerVersion"] and info["NCPU"] >= 1 and info["MemTotal"] > 0, info
assert info["Driver"] and info["CgroupDriver"] in ("cgroupfs", "systemd")

# images
with open(os.environ["BUSYBOX_TAR"], "rb") as tar:
    loaded = client.images.load(tar)
assert loaded[0].tags == ["busybox:latest"], loaded
image = client.images.get("busybox")
assert image.attrs["Os"] == "linux" and image.attrs["RootFS"]["Layers"], image.attrs
assert image.tag("example.test/box", "one")
assert "example.test/box:one" in client.images.get("busybox").tags
client.images.remove("example.test/box:one")
assert [h for h in client.images.get("busybox").history()]
try:
    client.images.get("no-such-image")
    raise AssertionError("an unknown image was found")
except errors.ImageNotFound as err:
    assert "No such image: no-such-image" in str(err), err

# run and its exit status
assert client.containers.run("busybox", "echo ahoy", remove=True) == b"ahoy\n"
try:
    client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    raise AssertionError("a failing command did not fail")
except errors.ContainerError as err:
    assert err.exit_status == 3 and b"bad" in err.stderr, err
try:
    client.containers.run("no-such-image-here:1")
except errors.APIError:
    pass

# the life of a container
seen = []
ready = threading.Event()
events = client.events(decode=True, filters={"type": "container"})


def watch():
    ready.set()
    for event in events:
        seen.append((event["Action"], event["Actor"]["Attributes"].get("name")))


thread = threading.Thread(target=watch, daemon=True)
thread.start()
ready.wait()
c = client.containers.create("busybox", "sh -c 'echo one; echo two >&2; sleep 1000'", name="py", detach=True, environment={"A": "b"},
                             labels={"kind": "test"}, ports={"80/tcp": None}, hostname="pyhost")
assert c.status == "created"
c.start()
c.reload()
assert c.status == "running" and c.attrs["State"]["Pid"] > 0
assert c.attrs["Config"]["Hostname"] == "pyhost" and "A=b" in c.attrs["Config"]["Env"]
assert c.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
assert int(c.ports["80/tcp"][0]["HostPort"]) > 0, c.ports
while not all(word in c.logs() for word in (b"one\n", b"two\n")):  # each stream comes at its own time
    pass
assert c.logs(stdout=True, stderr=False) == b"one\n"
assert c.logs(stdout=False, stderr=True) == b"two\n"
assert b"Z one" in c.logs(timestamps=True)
assert c.logs(tail=1) in (b"one\n", b"two\n")
code, out = c.exec_run("sh -c 'echo in; exit 4'")
assert (code, out) == (4, b"in\n"), (code, out)
code, out = c.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
assert out == (b"o\n", b"e\n"), out
code, out = c.exec_run("id -u", user="1")
assert out == b"1\n", out
ident = api.exec_create(c.id, ["cat"], stdin=True)["Id"]
sock = api.exec_start(ident, socket=True)
raw = sock._sock if hasattr(sock, "_sock") else sock
raw.sendall(b"through\n")
raw.shutdown(socket.SHUT_WR)
data = b""
while True:
    chunk = raw.recv(4096)
    if not chunk:
        break
    data += chunk
assert data[8:] == b"through\n", data
assert any(p[-1].startswith("sleep") or "sleep" in p[-1] for p in c.top()["Processes"])
c.pause()
c.reload()
assert c.status == "paused"
c.unpause()
c.rename("py2")
assert client.containers.get("py2").id == c.id
assert [x.name for x in client.containers.list(filters={"label": "kind=test"})] == ["py2"]
try:
    client.containers.create("busybox", name="py2")
    raise AssertionError("a name was given twice")
except errors.APIError as err:
    assert err.status_code == 409, err
c.restart(timeout=0)
c.kill("KILL")
assert c.wait()["StatusCode"] == 137
c.remove()
try:
    client.containers.get("py2")
    raise AssertionError("a removed container was found")
except errors.NotFound as err:
    assert "No such container: py2" in str(err), err

# a tar becomes an image
buf = io.BytesIO()
with tarfile.open(fileobj=buf, mode="w") as tar:
    entry = tarfile.TarInfo("etc/motd")
    entry.size = 5
    tar.addfile(entry, io.BytesIO(b"ahoy\n"))
answer = api.import_image_from_data(buf.getvalue(), repository="imported", tag="1")
assert "sha256:" in answer, answer
client.images.remove("imported:1")

# attach to standard input before the start
c = client.containers.create("busybox", "cat", stdin_open=True, name="cat")
sock = c.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
c.start()
raw = sock._sock if hasattr(sock, "_sock") else sock
raw.sendall(b"attached\n")
got = raw.recv(4096)
assert got[8:] == b"attached\n" or raw.recv(4096) == b"attached\n", got
raw.close()
c.remove(force=True)

# networks
net = client.networks.create("sea", driver="bridge", labels={"kind": "test"},
    ipam=docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet="10.241.0.0/24", gateway="10.241.0.1")]))
boat = client.containers.run("busybox", ["sleep", "1000"], name="boat", detach=True)
net.connect(boat, aliases=["ship"], ipv4_address="10.241.0.9")
net.reload()
assert [c.name for c in net.containers] == ["boat"], net.attrs
boat.reload()
assert boat.attrs["NetworkSettings"]["Networks"]["sea"]["IPAddress"] == "10.241.0.9", boat.attrs["NetworkSettings"]
try:
    net.remove()
    assert False, "a network in use was removed"
except docker.errors.APIError as e:
    assert e.status_code == 403 and "has active endpoints" in str(e), e
net.disconnect(boat)
assert [n.name for n in client.networks.list(names=["sea"])] == ["sea"]
boat.remove(force=True)
if tuple(int(x) for x in api._version.split(".")) >= (1, 25):
    assert client.networks.prune(filters={"label": "kind=test"})["NetworksDeleted"] == ["sea"]
else:
    net.remove()

wanted = [("create", "py"), ("start", "py"), ("pause", "py"), ("unpause", "py"), ("rename", "py2"), ("kill", "py2"), ("die", "py2"), ("destroy", "py2")]
it = iter(seen)
for want in wanted:
    assert want in it, (want, seen)
print("docker-py", docker.__version__, "API", api._version, "ok")
