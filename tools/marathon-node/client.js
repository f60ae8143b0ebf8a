// Runs marathon-node against the framework at argv[2]: create, update, scale, restart, kill, events, groups, queue, leader, delete.
'use strict';
const assert = require('assert');
const marathon = require('marathon-node')(process.argv[2]);
const stateful = {
  id: '/node/db', cmd: 'while true; do date >> data/log; sleep 1; done', cpus: 0.1, mem: 16, instances: 1,
  container: {type: 'MESOS', volumes: [{containerPath: 'data', mode: 'RW',
    external: {name: 'nodedb', provider: 'dvdi', size: 1, options: {'dvdi/driver': 'pool'}}}]}
};
const sleep = ms => new Promise(done => setTimeout(done, ms));
async function until(what, test, limit = 60000) {
  for (const end = Date.now() + limit; ; await sleep(100)) {
    try { if (await test()) return; } catch (e) { if (e.statusCode !== 503) throw e; }
    if (Date.now() > end) throw new Error('timeout: ' + what);
  }
}
const idle = async () => (await marathon.deployments.getList()).length === 0;
const app = async id => (await marathon.app.getOne(id)).app;

async function main() {
  const seen = {};
  const source = marathon.events.createEventSource();
  for (const type of ['event_stream_attached', 'api_post_event', 'status_update_event', 'deployment_info', 'deployment_success', 'group_change_success', 'app_terminated_event', 'instance_changed_event']) {
    source.addEventListener(type, e => { const d = JSON.parse(e.data); assert.strictEqual(d.eventType, type); seen[type] = (seen[type] || 0) + 1; });
  }
  await until('the stream', () => seen.event_stream_attached);
  assert.strictEqual(await marathon.misc.ping(), 'pong');
  assert.ok((await marathon.info.get()).frameworkId);
  const made = await marathon.app.create(stateful);
  assert.strictEqual(made.id, '/node/db');
  assert.strictEqual(made.deployments.length, 1);
  await until('the first instance', async () => (await app('/node/db')).tasksRunning === 1 && await idle());
  await assert.rejects(marathon.app.create(stateful), e => e.statusCode === 409);
  await marathon.app.update('/node/db', {instances: 3});
  await until('three instances', async () => (await app('/node/db')).tasksRunning === 3 && await idle());
  const tasks = (await marathon.app.getTasks('node/db')).tasks;
  assert.strictEqual(new Set(tasks.map(t => t.id)).size, 3);
  await marathon.app.restart('/node/db');
  await until('the restart', async () => (await app('/node/db')).tasksRunning === 3 && await idle());
  const again = (await marathon.app.getTasks('node/db')).tasks;
  assert.ok(again.every(t => !tasks.some(o => o.id === t.id)), 'a task survived the restart');
  await marathon.app.killTask('node/db', again[0].id);
  await until('the kill', async () => { const a = await app('/node/db'); return a.tasksRunning === 3 && !a.tasks.some(t => t.id === again[0].id); });
  await marathon.tasks.kill({ids: [(await marathon.tasks.getList()).tasks[0].id]});
  await until('the second kill', async () => (await app('/node/db')).tasksRunning === 3);
  const versions = (await marathon.app.getVersions('/node/db')).versions;
  assert.strictEqual((await marathon.app.getVersion('/node/db', versions[0])).id, '/node/db');
  await assert.rejects(marathon.app.update('/node/db', {instances: -1}), e => e.statusCode === 422 && e.error.details[0].path === '/instances');

  await marathon.groups.create({id: '/nodes', apps: [{id: 'a', cmd: 'sleep 1000', cpus: 0.1, mem: 16}],
    groups: [{id: 'sub', apps: [{id: 'b', cmd: 'sleep 1000', cpus: 0.1, mem: 16, dependencies: ['/nodes/a']}]}]});
  await until('the group', async () => (await app('/nodes/sub/b')).tasksRunning === 1 && await idle());
  assert.deepStrictEqual((await marathon.groups.getOne('nodes')).groups.map(g => g.id), ['/nodes/sub']);
  await marathon.groups.update('nodes', {scaleBy: 2});
  await until('scaling the group', async () => (await app('/nodes/a')).tasksRunning === 2 && await idle());
  await marathon.app.create({id: '/nodes/big', cmd: 'sleep 1', mem: 9e7});
  await until('the queue', async () => (await marathon.queue.get()).queue.some(q => q.app.id === '/nodes/big' && q.processedOffersSummary.rejectSummaryLastOffers.length > 0));
  await marathon.queue.resetDelay('nodes/big');
  const [deployment] = await marathon.deployments.getList();
  await marathon.deployments.destroy(deployment.id);
  await until('the rollback', idle);
  await assert.rejects(marathon.app.getOne('/nodes/big'), e => e.statusCode === 404);
  await marathon.groups.destroy('nodes');
  await until('the end of the group', idle);

  assert.ok((await marathon.leader.get()).leader);
  await marathon.leader.abdicate();
  await sleep(800);
  await until('a leader again', async () => (await app('/node/db')).tasksRunning === 3);
  await marathon.app.destroy('/node/db');
  await until('the end', async () => (await marathon.app.getList()).apps.length === 0 && await idle());
  for (const type of ['api_post_event', 'status_update_event', 'deployment_info', 'deployment_success', 'group_change_success', 'instance_changed_event'])
    assert.ok(seen[type], 'no ' + type);
  source.close();
  console.log('marathon-node: all right', JSON.stringify(seen));
}
main().catch(e => { console.error(e); process.exit(1); });
