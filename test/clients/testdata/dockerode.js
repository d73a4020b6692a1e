// What a program written for dockerode does; a broken promise ends it with status 1.
const assert = require('assert');
const fs = require('fs');
const { PassThrough } = require('stream');
const Docker = require('dockerode');

const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace('unix://', '') });
const collect = (stream) => new Promise((resolve, reject) => {
  const parts = [];
  stream.on('data', (d) => parts.push(d));
  stream.on('end', () => resolve(Buffer.concat(parts).toString()));
  stream.on('error', reject);
});

(async () => {
  assert.strictEqual((await docker.ping()).toString(), 'OK');
  assert.ok((await docker.version()).ApiVersion);
  const load = await docker.loadImage(fs.createReadStream(process.env.BUSYBOX_TAR));
  assert.match(await collect(load), /Loaded image: busybox:latest/);
  const images = await docker.listImages();
  assert.ok(images.some((i) => i.RepoTags.includes('busybox:latest')));

  const out = new PassThrough();
  const text = collect(out);
  const [result] = await docker.run('busybox', ['echo', 'ahoy'], out, { HostConfig: { AutoRemove: true } });
  // run answers with the exit, not with the end of the output, which ends out.
  assert.strictEqual(result.StatusCode, 0);
  assert.match(await text, /ahoy/);

  const c = await docker.createContainer({ Image: 'busybox', Cmd: ['sleep', '1000'], name: 'node', Labels: { kind: 'test' } });
  await c.start();
  assert.strictEqual((await c.inspect()).State.Running, true);
  const exec = await c.exec({ Cmd: ['sh', '-c', 'echo out; echo err >&2; exit 5'], AttachStdout: true, AttachStderr: true });
  const stream = await exec.start({ hijack: true, stdin: false });
  const o = new PassThrough();
  const e = new PassThrough();
  const both = Promise.all([collect(o), collect(e)]);
  c.modem.demuxStream(stream, o, e);
  await new Promise((resolve) => stream.on('end', resolve));
  o.end();
  e.end();
  assert.deepStrictEqual(await both, ['out\n', 'err\n']);
  assert.strictEqual((await exec.inspect()).ExitCode, 5);
  assert.strictEqual((await docker.listContainers({ filters: { label: ['kind=test'] } })).length, 1);
  await assert.rejects(docker.createContainer({ Image: 'busybox', name: 'node' }), (err) => err.statusCode === 409);
  await c.stop({ t: 0 });
  await assert.rejects(c.stop(), (err) => err.statusCode === 304);
  assert.strictEqual((await c.wait()).StatusCode, 137);
  await c.remove();
  await assert.rejects(c.inspect(), (err) => err.statusCode === 404 && /No such container/.test(err.json.message));

  // Networks.
  const net = await docker.createNetwork({ Name: 'sea', CheckDuplicate: true, Labels: { kind: 'test' }, IPAM: { Config: [{ Subnet: '10.240.0.0/24' }] } });
  await assert.rejects(docker.createNetwork({ Name: 'sea' }), (err) => err.statusCode === 409 && /already exists/.test(err.json.message));
  const boat = await docker.createContainer({ Image: 'busybox', Cmd: ['sleep', '1000'], name: 'boat' });
  await boat.start();
  await net.connect({ Container: 'boat', EndpointConfig: { Aliases: ['ship'], IPAMConfig: { IPv4Address: '10.240.0.9' } } });
  const on = Object.values((await net.inspect()).Containers);
  assert.deepStrictEqual(on.map((x) => [x.Name, x.IPv4Address]), [['boat', '10.240.0.9/24']]);
  assert.deepStrictEqual(Object.keys((await boat.inspect()).NetworkSettings.Networks).sort(), ['bridge', 'sea']);
  await assert.rejects(net.remove(), (err) => err.statusCode === 403 && /has active endpoints/.test(err.json.message));
  await net.disconnect({ Container: 'boat' });
  assert.deepStrictEqual((await net.inspect()).Containers, {});
  assert.strictEqual((await docker.listNetworks({ filters: { label: ['kind=test'] } })).length, 1);
  await net.remove();
  await assert.rejects(net.inspect(), (err) => err.statusCode === 404);
  await boat.remove({ force: true });
  console.log('dockerode ok');
})().catch((err) => { console.error(err); process.exit(1); });
