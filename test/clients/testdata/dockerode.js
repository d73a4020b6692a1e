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
  console.log('dockerode ok');
})().catch((err) => { console.error(err); process.exit(1); });
